"""What the page concludes from the metrics, and the interval plots."""

from typing import Any
from xml.etree import ElementTree

import pytest

from hand1000.config.gates import GateBounds
from hand1000.config.settings import load_settings
from hand1000.evaluation.gates import evaluate_gates
from hand1000.evaluation.paired import Better, Estimate
from hand1000.evaluation.paired_metrics import CHAMPION, TUNED, PairedMetric, PairedMetrics
from hand1000.reports.metric_lines import MIN_SAMPLES, MetricLine, Point, read_metric_lines
from hand1000.reports.plots import interval_svg, landmarks_svg
from tests.support.finished_run import HAND, make_run


def line(low: float, high: float, better: Better | None = "higher", n: int = 200, **fields: Any) -> MetricLine:
    """A metric whose paired difference of candidate and champion is between `low` and `high`."""
    points = {"base": Point(0.0, 0.0, 0.1, 200), "champion": Point(0.25, 0.0, 0.5, 200)}
    difference = Estimate(value=(low + high) / 2, low=low, high=high)
    return MetricLine("rate", better, points | {"candidate": Point(0.75, 0.5, 1.0, n)}, difference=difference, **fields)


def test_paired_difference_that_excludes_zero_decides() -> None:
    conclusions = [
        *(line(0.01, 0.1), line(-0.1, -0.01), line(-0.1, -0.01, "lower"), line(0.01, 0.1, "lower")),
        *(line(-0.01, 0.1), line(0.0, 0.1), line(-0.1, 0.0), line(0.01, 0.1, None)),
    ]
    kinds = [row.conclusion.kind for row in conclusions]
    assert kinds == ["better", "worse", "better", "worse", "unclear", "unclear", "unclear", "none"]
    assert conclusions[4].conclusion.text == "no clear difference"


def test_gates_and_conclusions_agree() -> None:
    """A gate that tolerates no loss fails exactly where the page says worse."""
    gates = load_settings("default").gates
    unbounded = {
        name: type(bounds)(**dict.fromkeys(type(bounds).model_fields))
        for name, bounds in gates
        if name != "on_failed_gate"
    }
    no_gates = gates.model_copy(update=unbounded)
    for low, high, better in (
        (0.01, 0.1, "lower"),
        (-0.1, 0.0, "higher"),
        (-0.2, -0.1, "higher"),
        (0.1, 0.2, "higher"),
    ):
        row = line(low, high, better)
        assert row.difference is not None
        metric = PairedMetric(
            name="detection rate",
            gesture=None,
            better=better,
            n=200,
            models=dict.fromkeys((TUNED, CHAMPION), Estimate(value=0.5, low=0.4, high=0.6)),
            differences={CHAMPION: row.difference},
        )
        gates = no_gates.model_copy(update={"detection_rate": GateBounds(threshold=None, max_loss=0.0)})
        (gate,) = evaluate_gates(PairedMetrics(metrics=(metric,)), gates, "models:/x@champion").results
        assert gate.passed == (row.conclusion.kind != "worse")


@pytest.mark.parametrize(("n", "kind"), [(3, "none"), (MIN_SAMPLES - 1, "none"), (MIN_SAMPLES, "better")])
def test_a_few_hands_earn_no_better(n: int, kind: str) -> None:
    conclusion = line(0.1, 0.2, n=n).conclusion
    assert conclusion.kind == kind and (kind == "better" or f"(n = {n})" in conclusion.text)


def test_an_undecided_metric_earns_no_better() -> None:
    reason = "undecided: the gesture classifier names 0.3 of 40 real hands"
    conclusion = line(0.1, 0.2, undecided=reason).conclusion
    assert (conclusion.kind, conclusion.text) == ("none", reason)


def test_a_value_without_paired_difference_earns_no_better() -> None:
    points = {"base": Point(20.0, None, None, 200), "candidate": Point(0.9, 0.9, 0.9, 200)}
    assert MetricLine("x", "lower", points).conclusion.text == "no interval"
    assert MetricLine("x", "lower", points, note="too few hands").conclusion.text == "too few hands"
    assert [point.text for point in points.values()] == ["", ""]


def test_a_run_has_lines_of_all_models(tmp_path) -> None:
    lines = {row.name: row for row in read_metric_lines(make_run(tmp_path))}
    assert list(lines)[:3] == ["gesture accuracy", "detection rate", "KID-H"]
    accuracy = lines["gesture accuracy"]
    assert list(accuracy.points) == ["base", "champion", "candidate"] and accuracy.reference == (0.95, "real images")
    assert accuracy.difference is not None and accuracy.difference.low > 0
    # A metric of hands counts hands.
    assert accuracy.n == "60" and lines["KID-H"].n == lines["FID-H"].n == "48"
    assert lines["FID-H"].conclusion.text == "no interval" and lines["color of the wall"].is_share


def test_without_a_champion_there_are_two_models(tmp_path) -> None:
    lines = read_metric_lines(make_run(tmp_path, champion=False))
    assert {tuple(row.points) for row in lines} == {("base", "candidate")}


def test_an_interval_plot_shows_values_and_says_them() -> None:
    row = line(0.1, 0.2, is_share=True, reference=(0.5, "real images"))
    svg = ElementTree.fromstring(interval_svg(row))
    assert svg.attrib["aria-label"] == "rate: base 0 (0 to 0.1); champion 0.25 (0 to 0.5); candidate 0.75 (0.5 to 1)"
    circle = svg.find("circle")
    assert circle is not None and float(circle.attrib["cx"]) == 8 + 0.75 * 244
    whiskers = [part.attrib["d"] for part in svg.iter("path") if part.attrib["class"] == "whisker candidate"]
    assert whiskers[0].startswith("M130.0 35.0H252.0")


def test_equal_values_have_a_plot() -> None:
    row = MetricLine("x", "lower", {"base": Point(1.0, None, None, 5), "candidate": Point(1.0, None, None, 5)})
    assert "nan" not in interval_svg(row) and interval_svg(MetricLine("x", "lower", {})) == ""


def test_landmarks_are_drawn_where_they_are() -> None:
    svg = ElementTree.fromstring(landmarks_svg([HAND, HAND]))
    paths = {part.attrib["class"]: part.attrib["d"] for part in svg}
    assert len(list(svg)) == 14 and paths["thumb"].startswith("M80.0 50.0L66.2 75.2L")
    assert paths["joints"].count("h0") == 21 and landmarks_svg([]) == ""
