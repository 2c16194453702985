"""The one validated bounding box: every reader turns what an annotator wrote into it, or says why it cannot."""

import math
from collections.abc import Sequence
from typing import Any

from hand1000.data.imageset import BBox

MAX_OVERHANG = 0.25
"""How far a box may reach beyond the image, as a share of its side: annotators draw some across the border."""


class UnusableBoxError(ValueError):
    """What is given as a box is none; the text says why."""


def parse_box(value: Any, size: tuple[int, int] | None = None) -> BBox:
    """Return the part of a box that is inside the image, x, y, width and height as shares of its sides.

    Args:
        value: x, y, width and height of the box, which may reach beyond the image by `MAX_OVERHANG`.
        size: Width and height of the upright image if the box is in pixels; None if it is relative to the image.

    Raises:
        UnusableBoxError: Not four finite numbers, no area, or outside the image or far beyond it.
    """
    x, y, width, height = _finite_numbers(value)
    if size is not None:
        if 0 < max(width, height) <= 1:
            raise UnusableBoxError(f"it is within one pixel: {value!r:.60}; is data.bbox_format relative?")
        x, y, width, height = x / size[0], y / size[1], width / size[0], height / size[1]
    if width <= 0 or height <= 0:
        raise UnusableBoxError(f"it has no area: {value!r:.60}")
    if x >= 0 and y >= 0 and x + width <= 1 and y + height <= 1:
        return x, y, width, height
    hint = "" if size else "; for boxes in pixels, set data.bbox_format to pixels"
    left, top = min(max(x, 0.0), 1.0), min(max(y, 0.0), 1.0)
    right, bottom = min(max(x + width, 0.0), 1.0), min(max(y + height, 0.0), 1.0)
    if right <= left or bottom <= top:
        raise UnusableBoxError(f"it is outside the image: {value!r:.60}{hint}")
    if min(x, y) < -MAX_OVERHANG or max(x + width, y + height) > 1 + MAX_OVERHANG:
        raise UnusableBoxError(f"it reaches far beyond the image: {value!r:.60}{hint}")
    return left, top, right - left, bottom - top


def _finite_numbers(value: Any) -> list[float]:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 4:
        raise UnusableBoxError(f"not four numbers: {value!r:.60}")
    if not all(isinstance(item, int | float) and not isinstance(item, bool) for item in value):
        raise UnusableBoxError(f"not four numbers: {value!r:.60}")
    try:
        numbers = [float(item) for item in value]
    except OverflowError:  # A whole number of more than 308 digits.
        raise UnusableBoxError(f"too large: {value!r:.60}") from None
    if not all(map(math.isfinite, numbers)):
        raise UnusableBoxError(f"not finite: {value!r:.60}")
    return numbers


def largest_box(boxes: Sequence[BBox]) -> BBox | None:
    """Return the box of the largest area, or None of none."""
    return max(boxes, key=lambda box: box[2] * box[3], default=None)
