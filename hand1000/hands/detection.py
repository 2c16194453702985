"""Hand detection on image sets: several images at a time, in order, and the labelled hand of each image."""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from hand1000.core.errors import Hand1000Error
from hand1000.core.progress import ProgressCallback, noop_callback
from hand1000.core.threads import available_cpus
from hand1000.data.crop import UnreadableImageError
from hand1000.hands.detector import Hand, HandDetector, box_iou
from hand1000.hands.landmarks import NUM_LANDMARKS, Landmarks
from hand1000.storage.images import read_rgb

if TYPE_CHECKING:
    from hand1000.data.imageset import BBox, ImageRecord

MIN_IOU = 0.1
"""Least IoU of a hand's landmarks with its labelled box. Landmarks are inside the hand, so that on rendered images the
IoU of the right hand has a median of 0.54 and a first percentile of 0.27."""

_CHECK_CONFIDENCE = 0.5
_MAX_WORKERS = 4
_PREFETCH = 8  # Images decoded ahead of the reader; more only take memory.

T = TypeVar("T")


def detect_hands(
    directory: Path,
    records: Sequence["ImageRecord"],
    *,
    min_detection_confidence: float,
    on_progress: ProgressCallback = noop_callback,
) -> Landmarks:
    """Detect the hand that `match_labelled_hand` picks of up to two, in each image of a set in `directory`.

    Images in which it is missed are tried again with a margin, see `HandDetector.detect_with_margin`.
    """
    count = len(records)
    result = Landmarks(
        np.zeros((count, NUM_LANDMARKS, 3), np.float32),
        np.zeros(count, bool),
        np.zeros(count, np.float32),
        np.zeros(count, bool),
        tuple(record.file_name for record in records),
    )

    def search(
        run: _Run, rows: Sequence[int], detect: Callable[[HandDetector, np.ndarray], list[Hand]]
    ) -> Iterator[int]:
        paths = [directory / records[row].file_name for row in rows]
        for row, (_, hands) in zip(rows, run(paths, detect), strict=True):
            if (hand := match_labelled_hand(hands, records[row].bbox)) is not None:
                result.landmarks[row], result.score[row], result.right[row] = hand.landmarks, hand.score, hand.right
                result.found[row] = True
            yield row

    with _detectors(min_detection_confidence, max_hands=2, num_images=count) as run:
        for row in search(run, range(count), HandDetector.detect):
            on_progress(row + 1, count, {})
        for _ in search(run, np.flatnonzero(~result.found).tolist(), HandDetector.detect_with_margin):
            pass
    return result


def match_labelled_hand(hands: Sequence[Hand], bbox: "BBox | None") -> Hand | None:
    """Return the hand that overlaps the labelled box most, by at least `MIN_IOU`; the largest hand without a label."""
    if bbox is None:
        return max(hands, key=lambda hand: hand.box[2] * hand.box[3], default=None)
    best = max(hands, key=lambda hand: box_iou(hand.box, bbox), default=None)
    return best if best is not None and box_iou(best.box, bbox) >= MIN_IOU else None


@contextlib.contextmanager
def make_iou_check(min_detector_iou: float) -> Iterator[Callable[[np.ndarray, "BBox"], bool] | None]:
    """Make the label check of `hand1000.data.prepare.prepare_image_sets`; it is None for a minimum of 0.

    The check takes a crop, (S, S, 3) uint8 RGB, and its labelled box. It passes if the landmarks of one of up to two
    detected hands, also with a margin around the crop, have an IoU of at least `min_detector_iou` with the box; see
    `MIN_IOU`.
    """
    if not min_detector_iou:
        yield None
        return
    with HandDetector(_CHECK_CONFIDENCE, max_hands=2) as detector:

        def check(crop: np.ndarray, bbox: "BBox") -> bool:
            return any(
                box_iou(hand.box, bbox) >= min_detector_iou
                for detect in (detector.detect, detector.detect_with_margin)
                for hand in detect(crop)
            )

        yield check


def count_workers() -> int:
    """Return the number of threads that detect hands; MediaPipe releases the interpreter's lock, so they are enough."""
    return min(available_cpus(), _MAX_WORKERS)


def iter_detections(
    paths: Sequence[Path],
    detect: Callable[[HandDetector, np.ndarray], T],
    *,
    min_detection_confidence: float,
    max_hands: int,
) -> Iterator[tuple[np.ndarray, T]]:
    """Iterate over image files as pixels, (S, S, 3) uint8 RGB, with detections, several files at a time.

    `detect` is `HandDetector.detect`, or `HandDetector.detect_with_scores`. The result does not depend on the other
    images.

    Raises:
        UnreadableImageError: A file is not an image, or not a square one.
    """
    with _detectors(min_detection_confidence, max_hands, len(paths)) as run:
        yield from run(paths, detect)


_Run = Callable[[Sequence[Path], Callable[[HandDetector, np.ndarray], Any]], Iterator[tuple[np.ndarray, Any]]]


@contextlib.contextmanager
def _detectors(min_detection_confidence: float, max_hands: int, num_images: int) -> Iterator[_Run]:
    """Load the detectors of `num_images` images, and make a function that yields pixels and detections of files."""
    idle: SimpleQueue[HandDetector] = SimpleQueue()

    def process(path: Path, detect: Callable[[HandDetector, np.ndarray], Any]) -> tuple[np.ndarray, Any]:
        image = read_square(path)
        detector = idle.get()
        try:
            return image, detect(detector, image)
        finally:
            idle.put(detector)

    with contextlib.ExitStack() as stack:
        workers = min(count_workers(), max(1, num_images))
        for _ in range(workers):
            idle.put(stack.enter_context(HandDetector(min_detection_confidence, max_hands)))
        pool = stack.enter_context(ThreadPoolExecutor(workers))

        def run(paths: Sequence[Path], detect: Callable[[HandDetector, np.ndarray], Any]) -> Iterator[tuple[Any, Any]]:
            pending: deque[Any] = deque()
            for path in paths:
                pending.append(pool.submit(process, path, detect))
                if len(pending) > _PREFETCH:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()

        yield run


def read_square(path: Path) -> np.ndarray:
    """Read an image of an image set, (S, S, 3) uint8 RGB.

    Raises:
        UnreadableImageError: The file is not an image, or not a square one: only in a square do x and y have one scale.
    """
    try:
        pixels = np.asarray(read_rgb(path))
    except Hand1000Error as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise UnreadableImageError(path, f"cannot be read ({reason}); prepare the image set again") from error
    if pixels.shape[0] != pixels.shape[1]:
        size = f"{pixels.shape[1]}x{pixels.shape[0]}"
        raise UnreadableImageError(path, f"{size} pixels, not square; prepare the image set again")
    return pixels
