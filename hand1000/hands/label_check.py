"""Whether MediaPipe sees a hand where one is labelled."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from hand1000.hands.detector import HandDetector, box_iou

if TYPE_CHECKING:
    from hand1000.data.imageset import BBox

_CONFIDENCE = 0.5


@contextlib.contextmanager
def make_iou_check(min_detector_iou: float) -> Iterator[Callable[[np.ndarray, "BBox"], bool] | None]:
    """The check that `hand1000.data.prepare.prepare_image_sets` takes; None where `min_detector_iou` is 0.

    It is given a crop, (S, S, 3) uint8 RGB, and its labelled box, and tells whether one of up to two hands that
    MediaPipe finds overlaps the box by at least `min_detector_iou` (intersection over union, 0 to 1). Landmarks lie
    inside the hand, so even the right one's overlap is 0.54 in the middle (`hand1000.hands.detector.MIN_IOU`).
    """
    if not min_detector_iou:
        yield None
        return
    with HandDetector(_CONFIDENCE, max_hands=2) as detector:
        yield lambda square, bbox: any(box_iou(hand.box, bbox) >= min_detector_iou for hand in detector.detect(square))
