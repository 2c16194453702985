"""Check that MediaPipe detects a hand where one is labelled."""

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
    """Make the label check of `hand1000.data.prepare.prepare_image_sets`; it is None for a minimum of 0.

    The check takes a crop, (S, S, 3) uint8 RGB, and its labelled box. It passes if the landmarks of one of up to two
    detected hands have an IoU of at least `min_detector_iou` with the box; see `hand1000.hands.detection.MIN_IOU`.
    """
    if not min_detector_iou:
        yield None
        return
    with HandDetector(_CONFIDENCE, max_hands=2) as detector:
        yield lambda crop, bbox: any(box_iou(hand.box, bbox) >= min_detector_iou for hand in detector.detect(crop))
