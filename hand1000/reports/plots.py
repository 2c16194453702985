"""Small drawings in the page itself, which follow its colors: interval plots and hand landmarks over an image."""

from collections.abc import Sequence

from markupsafe import Markup, escape

from hand1000.core.tables import format_number
from hand1000.reports.figures import FINGERS
from hand1000.reports.metric_lines import MetricLine

_WIDTH, _ROW_HEIGHT, _MARGIN = 260.0, 14.0, 8.0
_AXIS_HEIGHT = 15.0


def interval_svg(line: MetricLine) -> Markup:
    """Plot the values of a metric with their 95 % intervals, one row per model; the reference is a dashed line."""
    points = line.points
    if not points:
        return Markup("")
    bounds = [bound for point in points.values() for bound in (point.value, point.low, point.high) if bound is not None]
    if line.reference:
        bounds.append(line.reference[0])
    low, high = min(bounds), max(bounds)
    if line.is_share:
        low, high = 0.0, 1.0
    span = high - low or abs(high) or 1.0

    def x(value: float) -> float:
        return _MARGIN + (value - low) / span * (_WIDTH - 2 * _MARGIN)

    height = _ROW_HEIGHT * len(points) + _AXIS_HEIGHT
    description = "; ".join(
        f"{model} {format_number(point.value)}{f' ({point.text})' if point.text else ''}"
        for model, point in points.items()
    )
    parts = [
        f'<svg class="intervals" viewBox="0 0 {_WIDTH:.0f} {height:.0f}" role="img" '
        f'aria-label="{escape(f"{line.name}: {description}")}">'
    ]
    base_y = height - _AXIS_HEIGHT + 2
    parts.append(f'<path class="axis" d="M{_MARGIN:.0f} {base_y:.1f}H{_WIDTH - _MARGIN:.0f}"/>')
    for value, anchor in ((low, "start"), (high, "end")):
        parts.append(
            f'<text x="{x(value):.1f}" y="{height - 2:.1f}" text-anchor="{anchor}">{format_number(value)}</text>'
        )
    if line.reference:
        parts.append(f'<path class="reference" d="M{x(line.reference[0]):.1f} 0V{base_y:.1f}"/>')
    for row, (model, point) in enumerate(points.items()):
        y = _ROW_HEIGHT * (row + 0.5)
        if point.low is not None and point.high is not None:
            left, right = x(point.low), x(point.high)
            parts.append(
                f'<path class="whisker {model}" d="M{left:.1f} {y:.1f}H{right:.1f}M{left:.1f} {y - 3:.1f}v6'
                f'M{right:.1f} {y - 3:.1f}v6"/>'
            )
        parts.append(_mark(model, x(point.value), y))
    return Markup("".join(parts) + "</svg>")


def _mark(model: str, x: float, y: float) -> str:
    """A mark of a form of its own, so that the models differ in print and for the color-blind."""
    if model == "base":
        return f'<rect class="mark base" x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7"/>'
    if model == "champion":
        return f'<path class="mark champion" d="M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z"/>'
    return f'<circle class="mark candidate" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'


def mark_svg(model: str) -> Markup:
    """The mark of a model for a legend."""
    return Markup(f'<svg class="legend" viewBox="0 0 14 14" aria-hidden="true">{_mark(model, 7, 7)}</svg>')


def landmarks_svg(hands: Sequence[Sequence[tuple[float, float]]]) -> Markup:
    """Draw MediaPipe's landmarks (x, y), 21 per hand relative to the image, to be laid over it; "" without a hand."""
    if not hands:
        return Markup("")
    parts = ['<svg class="landmarks" viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">']
    for hand in hands:
        points = [f"{100 * x:.1f} {100 * y:.1f}" for x, y in hand]
        for finger, joints in FINGERS.items():
            parts.append(f'<path class="{finger}" d="M{"L".join(points[joint] for joint in joints)}"/>')
        parts.append(f'<path class="joints" d="M{"h0M".join(points)}h0"/>')
    return Markup("".join(parts) + "</svg>")
