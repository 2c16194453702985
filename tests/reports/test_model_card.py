"""The model card: its content, and that external text cannot become Markdown or HTML."""

from typing import Any

import pytest

from hand1000.core.tables import Table
from hand1000.evaluation.base_vs_tuned import MetricRow, metrics_table
from hand1000.reports.html import render_template
from hand1000.reports.model_card import usage_snippets

KID = MetricRow("KID", 0.2, 0.1, "lower", 200, 200, "95 %: 0.09 to 0.11")
CONF = MetricRow("HAND-CONF", 0.9, 0.8, "higher", 150, 180)
URI, PROMPT = "models:/hand1000-call-candidates@champion", 'it\'s "so", making phone call hand gesture'


@pytest.fixture
def content() -> dict[str, Any]:
    """What `render_model_card` states, made up."""
    return {
        "phrases": {"call": "making phone call hand gesture"},
        "metrics": metrics_table([KID, CONF]),
        "gesture_rates": Table((), ()),
        "extractor": "small",
        "resizer": "bicubic",
        "training": Table(("input", "value"), [("base model", "small|base, revision abc")]),
        "licenses": Table(("component", "license"), [("HaGRID", "<b>CC BY-SA 4.0")]),
        "snippets": usage_snippets(URI, PROMPT),
    }


def test_the_card_states_what_a_user_must_know(content) -> None:
    card = render_template("model_card.md.j2", **content)
    assert "| KID ↓ | 0.2 | **0.1** | 200 | 95 %: 0.09 to 0.11 |" in card
    assert "| HAND-CONF ↑ | **0.9** | 0.8 | 150 / 180 |" in card
    assert "small\\|base, revision abc" in card and "&lt;b>CC BY-SA" in card
    assert '    pipeline = load_pipeline("models:/hand1000-call-c' in card
    assert r"""    pipeline("it's \"so\", making phone call hand gesture")""" in card
    assert """--prompt 'it'"'"'s "so", making phone call hand gesture' --num 8""" in card
    assert "people making phone call hand gesture. Every prompt must contain the phrase **making" in card
    assert len(card) < 5000 and "| gesture |" not in card


def test_a_card_of_several_gestures_states_each_phrase(content) -> None:
    rates = Table("gabcdefn", [("call", 0, 0.5, 0.9, 0.6, 0.7, "–", 40), ("ok", 0, 0, 0, 1, 1, 1, 40)])
    phrases = content["phrases"] | {"ok": "making ok sign hand gesture"}
    several = content | {"phrases": phrases, "gesture_rates": rates}
    card = render_template("model_card.md.j2", **several)
    assert card.startswith("# Hand1000: call, ok\n") and "| ok | **making ok sign hand gesture** |" in card
    assert "| call | 0 | 0.5 | 0.9 | 0.6 | 0.7 | – | 40 |" in card and "one of these gestures" in card
