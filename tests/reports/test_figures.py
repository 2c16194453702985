"""Figures of the reports."""

import math
import re
from xml.etree import ElementTree

import pytest

from hand1000.reports.figures import Curve, curve_svg, hand_svg, smooth_points, thin_points


def test_a_curve_is_valid_svg_with_equal_bytes() -> None:
    curve = Curve("c", [(0, 0.5), (50, math.nan), (100, 2.0)], y_label="a <b> & $x^{$")
    svg = curve_svg(curve)
    assert svg == curve_svg(curve) and "Matplotlib" not in svg
    texts = [element.text for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert "step" in texts and "a <b> & $x^{$" in texts and "2.00" in texts


def test_a_curve_without_finite_values_is_empty() -> None:
    assert "<svg" in curve_svg(Curve("c", [(0, math.nan)]))


def test_a_long_curve_is_thinned_to_means() -> None:
    points = thin_points([(step, 1.0 if step % 2 else 3.0) for step in range(100_000)])
    assert len(points) == 500 and {value for _, value in points} == {2.0}
    assert thin_points([(0, 1.0), (1, 5.0)]) == [(0, 1.0), (1, 5.0)] and thin_points([]) == []
    curve = Curve("c", [(step, math.sin(step)) for step in range(100_000)])
    assert len(curve_svg(curve)) < 100_000


def test_a_smoothed_curve_keeps_the_mean_and_does_not_lag() -> None:
    rough = smooth_points([(step, step % 2) for step in range(400)])
    values = [value for _, value in rough[20:-20]]
    assert max(values) - min(values) < 0.1 and sum(values) / len(values) == pytest.approx(0.5, abs=0.01)
    slope = [(step, float(step)) for step in range(200)]
    assert smooth_points(slope) == slope


def test_a_hand_fits_its_frame_and_keeps_its_shape() -> None:
    hand = [(100 + 0.5 * i, -3 + i, 9.0) for i in range(21)]
    circles = re.findall(r'cx="(.*?)" cy="(.*?)"', hand_svg(hand, size=200))
    points = [(float(x), float(y)) for x, y in circles]
    assert len(points) == 21 and points[0] == (100 - 43, 14) and points[20] == (100 + 43, 186)
    with pytest.raises(ValueError, match="21 landmarks"):
        hand_svg(hand[:20])
