"""The model card: its content, and that external text cannot become Markdown or HTML."""

import dataclasses

import pytest

from hand1000.core.errors import Hand1000Error
from hand1000.evaluation.base_vs_tuned import GestureRow, MetricRow
from hand1000.reports.model_card import CardContent, render_model_card

KID = MetricRow("KID", 0.2, 0.1, "lower", 200, 200, "95 %: 0.09 to 0.11")
CONF = MetricRow("HAND-CONF", 0.9, 0.8, "higher", 150, 180)


def test_the_card_states_what_a_user_must_know() -> None:
    card = render_model_card(
        CardContent(
            gestures=("call",), base_model="small|base", base_revision="abc", data_digest="ab" * 32,
            counts={"train": 8}, settings={"mu": 0.7}, metric_rows=[KID, CONF], extractor="small", resizer="bicubic",
            prompt="it's \"so\", making phone call hand gesture",
            licenses={"HaGRID": "<b>CC BY-SA 4.0"}, model_uri="models:/hand1000-call-candidates@champion",
        )
    )  # fmt: skip
    assert "| KID ↓ | 0.2 | **0.1** | 200 | 95 %: 0.09 to 0.11 |" in card
    assert "| HAND-CONF ↑ | **0.9** | 0.8 | 150 / 180 |" in card
    assert "small\\|base, revision abc" in card and "&lt;b>CC BY-SA" in card and "ab" * 32 in card
    assert 'load_model_folder("models:/hand1000-call-candidates@champion")' in card
    assert r"""pipeline("it's \"so\", making phone call hand gesture")""" in card
    assert """--prompt 'it'"'"'s "so", making phone call hand gesture' --num 8""" in card
    assert len(card) < 5000
    with pytest.raises(Hand1000Error, match="unknown gesture"):
        render_model_card(CardContent(("wave",), "b", "r", "d", {}, {}, [], "e", "r", "p"))


def test_a_card_of_several_gestures_states_each_phrase() -> None:
    rows = [GestureRow("call", (0.0, 0.5, 0.9), (0.6, 0.7, None), 40), GestureRow("ok", (0, 0, 0), (1, 1, 1), 40)]
    content = CardContent(("call", "ok"), "b", "r", "d", {}, {}, [KID], "e", "r", "p")
    card = render_model_card(dataclasses.replace(content, gesture_rows=rows))
    assert card.startswith("# Hand1000: call, ok\n") and "| ok | **making ok sign hand gesture** |" in card
    assert "| call | 0 | 0.5 | 0.9 | 0.6 | 0.7 | – | 40 |" in card and "one of these gestures" in card
