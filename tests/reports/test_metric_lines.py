"""What the page concludes from the metrics, and the interval plots."""

from xml.etree import ElementTree

import pytest

from hand1000.reports.metric_lines import MIN_SAMPLES, MetricLine, Point, read_metric_lines
from hand1000.reports.plots import interval_svg, landmarks_svg
from tests.support.finished_run import HAND, make_run


def line(candidate: Point, other: Point, better: str | None = "higher", **fields: object) -> MetricLine:
    return MetricLine(
        "rate", better, {"base": Point(0.0, 0.0, 0.1, 200), "champion": other, "candidate": candidate}, **fields
    )  # type: ignore[arg-type]


def test_only_separate_intervals_are_better_or_worse() -> None:
    low, high, middle = Point(0.4, 0.3, 0.5, 200), Point(0.9, 0.8, 0.95, 200), Point(0.6, 0.45, 0.75, 200)
    conclusions = [line(high, low), line(low, high), line(low, high, "lower"), line(middle, low), line(high, low, None)]
    assert [row.conclusion.kind for row in conclusions] == ["better", "worse", "better", "unclear", "none"]
    assert conclusions[3].conclusion.text == "no clear difference"


def test_touching_intervals_overlap() -> None:
    assert line(Point(0.6, 0.5, 0.7, 200), Point(0.4, 0.3, 0.5, 200)).conclusion.kind == "unclear"


@pytest.mark.parametrize(("n", "kind"), [(3, "none"), (MIN_SAMPLES - 1, "none"), (MIN_SAMPLES, "better")])
def test_a_few_hands_earn_no_better(n: int, kind: str) -> None:
    conclusion = line(Point(0.9, 0.8, 0.95, n), Point(0.2, 0.1, 0.3, 200)).conclusion
    assert conclusion.kind == kind and (kind == "better" or f"(n = {n})" in conclusion.text)


def test_a_value_without_interval_earns_no_better() -> None:
    points = [Point(20.0, None, None, 200), Point(0.9, 0.9, 0.9, 200)]
    assert [line(point, Point(0.5, 0.4, 0.6, 200)).conclusion.text for point in points] == ["no interval"] * 2
    assert [point.text for point in points] == ["", ""]


def test_without_a_champion_the_base_model_is_compared() -> None:
    row = MetricLine("x", "higher", {"base": Point(0.1, 0.0, 0.2, 50), "candidate": Point(0.9, 0.8, 1.0, 50)})
    assert row.conclusion.kind == "better"


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
    row = line(Point(0.75, 0.5, 1.0, 200), Point(0.25, 0.0, 0.5, 200), is_share=True, reference=(0.5, "real images"))
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
