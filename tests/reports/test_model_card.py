"""The model card: its content, and that external text cannot become Markdown or HTML."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from hand1000.evaluation.gate_report import GateReport
from hand1000.evaluation.paired import Estimate
from hand1000.export.measured import EXPORT_METRICS, ExportMetrics
from hand1000.reports.metric_lines import MetricLine, Point, read_metric_lines
from hand1000.reports.model_card import card_metrics, render_model_card
from hand1000.reports.run import FinishedRun
from hand1000.reports.snippets import usage_snippets
from hand1000.storage.files import write_json
from tests.support.finished_run import CHAMPION_URI, make_run

PROMPT = 'it\'s "so", making phone call hand gesture'
MAX_DESCRIPTION = 5000
"""Characters of a version's description that MLflow keeps."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    return make_run(tmp_path_factory.mktemp("run"))


def test_the_card_states_what_a_user_must_know(run: FinishedRun) -> None:
    card = render_model_card(run)
    assert f"**Failed**, compared with {CHAMPION_URI}." in card or f"**Passed**, compared with {CHAMPION_URI}." in card
    assert "| gesture accuracy | at least 0.5 | 0.6 | " in card
    assert re.search(r"\| gesture accuracy ↑ \| 0 \| 0.4 \| 0.6 \| 0\.\d+ to 0\.\d+ \| \*\*better\*\* \| 60 \|", card)
    assert "people making phone call hand gesture. Every prompt must contain the phrase **making" in card
    assert "| base model | models/small-base, revision abc |" in card and "Apache-2.0" in card
    assert '    pipeline = load_pipeline("models:/NAME/VERSION")' in card and "![" not in card
    assert len(card) < MAX_DESCRIPTION and "| gesture | phrase |" not in card


def test_the_card_says_what_an_export_lacks(run: FinishedRun) -> None:
    card = render_model_card(run)
    assert "uses autoguidance with a scale of 4" in card and "Both on the first 48 test prompts" in card
    assert "| gesture accuracy ↑ | 0.625 | 0.4375 | -0.1875 | -0.31 to -0.05 | 48 |" in card


def test_the_card_says_why_no_export_was_measured(tmp_path: Path) -> None:
    run = make_run(tmp_path, num_images=10)
    note = "The model has no autoguidance, so an export generates the same images."
    write_json(run.evaluation / EXPORT_METRICS, ExportMetrics(note=note))
    settings = run.settings.with_overrides({"generation.autoguidance_scale": 1.0})
    card = render_model_card(replace(run, settings=settings))
    assert f"\n\n{note}\n\n## Licenses" in card and "lacks it" not in card


def test_a_card_with_many_gates_has_fewer_metrics(run: FinishedRun) -> None:
    gate = run.gates.results[0]
    many = run.gates.model_copy(update={"results": (gate,) * 28})
    cards = [render_model_card(replace(run, gates=gates)) for gates in (run.gates, many)]
    assert all(len(card) < MAX_DESCRIPTION and card.count("load_pipeline(") == 1 for card in cards)
    rows = [card.partition("## Metrics")[2].partition("↓ lower")[0].count("\n| ") for card in cards]
    assert rows[0] == 2 + len(read_metric_lines(run)[:12]) and 4 <= rows[1] < rows[0]
    assert "| detection rate ↑ |" in cards[1]


def test_the_card_shows_the_image_it_is_given(run: FinishedRun) -> None:
    card = render_model_card(run, "/get-artifact?path=comparison.png&run_uuid=1")
    assert "one row per model: base / champion / candidate](/get-artifact?path=comparison.png&run_uuid=1)" in card


def test_only_what_is_more_than_chance_is_bold() -> None:
    def line(candidate: Point) -> MetricLine:
        points = {"base": Point(0.2, 0.1, 0.3, 200), "candidate": candidate}
        return MetricLine("rate", "higher", points, difference=Estimate(value=0.7, low=0.6, high=0.8))

    card = card_metrics([line(Point(0.9, 0.8, 0.95, 200)), line(Point(0.9, 0.8, 0.95, 3))]).markdown()
    assert "| 0.2 | 0.9 | 0.8 to 0.95 | **better** | 200 |" in card
    assert "| too few to tell (n = 3) | 200 / 3 |" in card


def test_a_card_of_several_gestures_states_each_phrase(tmp_path: Path) -> None:
    card = render_model_card(make_run(tmp_path, num_images=10, gestures=("call", "ok")))
    assert card.startswith("# Hand1000: call, ok\n") and "| ok | **making ok sign hand gesture** |" in card
    assert "one of these gestures" in card


def test_external_text_cannot_become_markdown_or_html(tmp_path: Path) -> None:
    evil = "a|b <b>c</b>"
    gates = GateReport(champion="", results=())
    card = render_model_card(make_run(tmp_path, num_images=10, base_model=evil, champion=False, gates=gates))
    assert "a\\|b &lt;b>c" in card and "<b>" not in card and "without a champion" in card


def test_snippets_quote_the_prompt_and_name_the_registry() -> None:
    python, shell = usage_snippets("models:/hand1000-call/2", PROMPT)
    assert 'load_pipeline("models:/hand1000-call/2")' in python and r"""pipeline("it's \"so\", making""" in python
    assert """--prompt 'it'"'"'s "so", making phone call hand gesture' --num 8""" in shell and "registry" not in shell
    python, shell = usage_snippets("models:/hand1000-call/2", PROMPT, "my runs")
    assert 'load_pipeline("models:/hand1000-call/2", registry="my runs")' in python
    assert "--model models:/hand1000-call/2 --registry 'my runs' --prompt" in shell


def test_metrics_without_a_value_have_no_columns_of_models() -> None:
    line = MetricLine("gesture accuracy, timeout", "higher", {}, note="the classifier does not know timeout")
    assert (
        "| gesture accuracy, timeout ↑ | – | the classifier does not know timeout |" in card_metrics([line]).markdown()
    )
