"""Small drawings as SVG text, without any library: a curve and a hand."""

import math
from collections.abc import Sequence
from html import escape

_WIDTH, _HEIGHT = 460, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 24, 12, 42
_MAX_POINTS = 500
_SMOOTHING_SPANS = 25
FINGERS = {
    "thumb": (0, 1, 2, 3, 4),
    "index": (0, 5, 6, 7, 8),
    "middle": (9, 10, 11, 12),
    "ring": (13, 14, 15, 16),
    "little": (0, 17, 18, 19, 20),
    "palm": (5, 9, 13, 17),
}
"""MediaPipe's landmarks along each finger and across the palm."""


def curve_svg(points: Sequence[tuple[int, float]], *, x_label: str, y_label: str) -> str:
    """A curve over steps: raw and faint, with its smoothed course on top, axes and labels.

    Args:
        points: (step, value) with rising steps; values that are not finite are left out. Long ones are thinned to
            means of neighbours.
        x_label, y_label: untrusted text is escaped.
    """
    shown = _thinned([(step, value) for step, value in points if math.isfinite(value)])
    if not shown:
        return '<p class="none">nothing recorded</p>'
    x_ticks = _ticks(shown[0][0], shown[-1][0])
    y_ticks = _ticks(min(value for _, value in shown), max(value for _, value in shown))
    x_low, x_high = min(x_ticks[0], shown[0][0]), max(x_ticks[-1], shown[-1][0])
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def x(step: float) -> float:
        return _LEFT + (step - x_low) / (x_high - x_low) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _TOP + (y_high - value) / (y_high - y_low) * (_HEIGHT - _TOP - _BOTTOM)

    def line(css: str, series: Sequence[tuple[float, float]]) -> str:
        return f'<polyline class="{css}" points="{" ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in series)}"/>'

    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = [
        f'<svg class="curve" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(y_label)} over {escape(x_label)}">'
    ]
    for tick in y_ticks:
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
    for tick in x_ticks:
        parts.append(f'<text x="{x(tick):.1f}" y="{bottom + 16}" text-anchor="middle">{tick:.6g}</text>')
    parts.append(f'<path class="axis" d="M{_LEFT},{_TOP}V{bottom}H{right}"/>')
    parts += [line("raw", shown), line("smooth", _smoothed(shown))]
    middle = (_TOP + bottom) / 2
    parts.append(f'<text x="{(_LEFT + right) / 2}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(
        f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">{escape(y_label)}</text>'
    )
    return "".join(parts) + "</svg>"


def hand_svg(landmarks: Sequence[Sequence[float]], size: int = 240) -> str:
    """A hand's skeleton seen from the camera.

    Args:
        landmarks: 21 of (x, y, z), y downwards, in any unit and place: the drawing is fitted to its frame.
        size: side of the frame in pixels.
    """
    if len(landmarks) != 21:
        raise ValueError(f"a hand has 21 landmarks, not {len(landmarks)}")
    margin = 14
    low = [min(point[axis] for point in landmarks) for axis in (0, 1)]
    high = [max(point[axis] for point in landmarks) for axis in (0, 1)]
    scale = (size - 2 * margin) / (max(high[0] - low[0], high[1] - low[1]) or 1.0)
    at = [[size / 2 + (point[axis] - (low[axis] + high[axis]) / 2) * scale for axis in (0, 1)] for point in landmarks]
    parts = [f'<svg class="hand" viewBox="0 0 {size} {size}" width="{size}" role="img" aria-label="mean hand">']
    for finger, joints in FINGERS.items():
        corners = " ".join(f"{at[joint][0]:.1f},{at[joint][1]:.1f}" for joint in joints)
        parts.append(f'<polyline class="{finger}" points="{corners}"/>')
    parts += [f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="3.5"/>' for cx, cy in at]
    return "".join(parts) + "</svg>"


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    size = math.ceil(len(points) / _MAX_POINTS)
    if size <= 1:
        return list(points)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(a for a, _ in group) / len(group), sum(b for _, b in group) / len(group)) for group in groups]


def _smoothed(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The mean over a window of a twenty-fifth of the points around each: centred, so that it does not lag."""
    reach = len(points) // (2 * _SMOOTHING_SPANS)
    out = []
    for index, (step, _) in enumerate(points):
        near = min(reach, index, len(points) - 1 - index)
        window = [value for _, value in points[index - near : index + near + 1]]
        out.append((step, sum(window) / len(window)))
    return out


def _ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from at most `low` to at least `high`, evenly apart, never a single one."""
    if high <= low:
        low, high = low - (abs(low) or 1) * 0.1, high + (abs(high) or 1) * 0.1
    raw = (high - low) / count
    magnitude = 10 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]
