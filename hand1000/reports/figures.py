"""Figures of the reports as SVG: training curves and hand skeletons."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

FINGERS = {
    "thumb": (0, 1, 2, 3, 4),
    "index": (0, 5, 6, 7, 8),
    "middle": (9, 10, 11, 12),
    "ring": (13, 14, 15, 16),
    "little": (0, 17, 18, 19, 20),
    "palm": (5, 9, 13, 17),
}
"""MediaPipe's landmarks along each finger and across the palm."""

_MAX_POINTS = 500
_WINDOWS_PER_CURVE = 25
_LINE_COLOR, _AXIS_COLOR = "#3b82d4", "#808891"  # Legible on light and on dark pages.

Points = Sequence[tuple[float, float]]
"""Pairs of step and value, in the order of the steps."""


@dataclass(frozen=True)
class Curve:
    """A logged value over the training steps."""

    title: str
    points: Points
    y_label: str = "loss"


def curve_svg(curve: Curve) -> str:
    """Plot the finite values faintly, and their moving average on top. Equal curves give equal bytes."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    points = thin_points([point for point in curve.points if math.isfinite(point[1])])
    options: Any = {"svg.hashsalt": "hand1000", "svg.fonttype": "none", "text.parse_math": False, "font.size": 9}
    file = io.BytesIO()
    with rc_context(options):
        figure = Figure(figsize=(4.6, 2.4), layout="constrained")
        axes = figure.subplots()
        for series, alpha, width in ((points, 0.3, 1.0), (smooth_points(points), 1.0, 1.8)):
            steps, values = [step for step, _ in series], [value for _, value in series]
            axes.plot(steps, values, color=_LINE_COLOR, alpha=alpha, linewidth=width)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.set_xlabel("step", color=_AXIS_COLOR)
        axes.set_ylabel(curve.y_label, color=_AXIS_COLOR)
        axes.tick_params(colors=_AXIS_COLOR)
        axes.grid(color=_AXIS_COLOR, alpha=0.25)
        axes.spines[:].set_color(_AXIS_COLOR)
        axes.spines[["top", "right"]].set_visible(False)
        figure.patch.set_alpha(0)
        axes.patch.set_alpha(0)
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None, "Creator": None})
    return file.getvalue().decode()


def hand_svg(landmarks: Sequence[Sequence[float]], size: int = 240) -> Markup:
    """Draw the skeleton of a hand as the camera sees it.

    Args:
        landmarks: Landmarks, 21 of (x, y, z), with y downwards; the drawing is fitted to its frame.
        size: Side of the frame in pixels.
    """
    if len(landmarks) != 21:
        raise ValueError(f"a hand has 21 landmarks, not {len(landmarks)}")
    margin = 14
    low = [min(point[axis] for point in landmarks) for axis in (0, 1)]
    high = [max(point[axis] for point in landmarks) for axis in (0, 1)]
    scale = (size - 2 * margin) / (max(high[0] - low[0], high[1] - low[1]) or 1.0)
    points = [
        [size / 2 + (point[axis] - (low[axis] + high[axis]) / 2) * scale for axis in (0, 1)] for point in landmarks
    ]
    parts = [f'<svg class="hand" viewBox="0 0 {size} {size}" width="{size}" role="img" aria-label="mean hand">']
    for finger, joints in FINGERS.items():
        vertices = " ".join(f"{points[joint][0]:.1f},{points[joint][1]:.1f}" for joint in joints)
        parts.append(f'<polyline class="{finger}" points="{vertices}"/>')
    parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in points]
    return Markup("".join(parts) + "</svg>")


def thin_points(points: Points) -> Points:
    """At most 500 points: the means of neighboring ones."""
    size = math.ceil(len(points) / _MAX_POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)] if points else []
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def smooth_points(points: Points) -> Points:
    """A moving average over a 25th of the points. Its window is centered, so that the average does not lag."""
    radius = len(points) // (2 * _WINDOWS_PER_CURVE)
    averages = []
    for index, (step, _) in enumerate(points):
        reach = min(radius, index, len(points) - 1 - index)
        window = [value for _, value in points[index - reach : index + reach + 1]]
        averages.append((step, sum(window) / len(window)))
    return averages
