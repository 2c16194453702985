"""MediaPipe Hands on single pictures and on image sets."""

import contextlib
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
from PIL import Image

from hand1000.data.crop import UnreadableImage
from hand1000.hands.landmarks import NUM_LANDMARKS, Landmarks
from hand1000.hands.presence import PresenceGraph

if TYPE_CHECKING:
    from hand1000.data.imageset import BBox, ImageRecord

MIN_IOU = 0.1
"""Overlap of the landmarks' box with the labelled one below which it is another hand. Landmarks lie inside the hand,
so that even the right hand's overlap is 0.54 in the middle and 0.27 for one in a hundred (rendered pictures)."""

_WORKERS = 2  # MediaPipe computes without the interpreter's lock, so threads are enough.
_AHEAD = 8  # Pictures decoded ahead of the reader; more would only fill memory.
_LEAST_SIDE = 256
_GRAPH = "mediapipe/modules/hand_landmark/hand_landmark_tracking_cpu.binarypb"

T = TypeVar("T")

_quiet_lock = threading.Lock()
_warned = False


@dataclass(frozen=True)
class Hand:
    """One hand in a picture.

    Attributes:
        landmarks: (21, 3) float32; x and y relative to the picture from its upper left corner, z the depth relative
            to the wrist in about the scale of x, smaller is nearer. Points may lie outside 0..1.
        score: how sure MediaPipe is of which hand it is, 0.5 to 1; it has no score of there being a hand.
        right: whether it is a person's right hand.
    """

    landmarks: np.ndarray
    score: float
    right: bool

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x, y, width and height of the landmarks' box, relative to the picture."""
        low, high = self.landmarks[:, :2].min(0), self.landmarks[:, :2].max(0)
        return float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1])


@dataclass(frozen=True)
class Detection:
    """The hands in a picture, and how sure MediaPipe is of them.

    Attributes:
        hands: in MediaPipe's order.
        palm_score: of the palm that its first network is surest of, `min_detection_confidence` to 1; 0 without one.
        presence: how sure its second network is that such a palm belongs to a hand, of the surest; 0 without a palm. A
            hand of less than 0.5 is not among `hands`.
    """

    hands: list[Hand]
    palm_score: float
    presence: float


class HandDetector:
    """MediaPipe Hands for pictures that have nothing to do with each other; a context manager.

    Args:
        min_detection_confidence: of the palm detector, 0 to 1.
        max_hands: the most hands that are told of a picture.
    """

    def __init__(self, min_detection_confidence: float, max_hands: int = 1) -> None:
        self._confidence, self._max_hands = min_detection_confidence, max_hands
        self._hands: Any = None
        self._presence: PresenceGraph | None = None

    def __enter__(self) -> Self:
        with _quiet():
            from mediapipe.python.solution_base import SolutionBase

            # As mediapipe.solutions.hands.Hands for static pictures, which does not tell the palms, though.
            self._hands = SolutionBase(
                binary_graph_path=_GRAPH,
                side_inputs={"model_complexity": 1, "num_hands": self._max_hands, "use_prev_landmarks": False},
                calculator_params={
                    "palmdetectioncpu__TensorsToDetectionsCalculator.min_score_thresh": self._confidence,
                    "handlandmarkcpu__ThresholdingCalculator.threshold": 0.5,
                },
                outputs=[
                    "multi_hand_landmarks",
                    "multi_handedness",
                    "palm_detections",
                    "hand_rects_from_palm_detections",
                ],
            )
            # The models are loaded, with warnings, in the background; a first picture waits for them.
            self._process(np.zeros((_LEAST_SIDE, _LEAST_SIDE, 3), np.uint8))
        return self

    def __exit__(self, *_: object) -> None:
        self._hands.close()
        if self._presence is not None:
            self._presence.close()

    def detect(self, image: np.ndarray) -> list[Hand]:
        """The hands in a picture, (H, W, 3) uint8 RGB, in MediaPipe's order."""
        return _hands_of(self._found_in(_enlarged(image)))

    def look(self, image: np.ndarray) -> Detection:
        """The same with scores, which take a second run of the landmark network."""
        picture = _enlarged(image)
        found = self._found_in(picture)
        palms = [palm.score[0] for palm in found.palm_detections or []]
        if not palms:
            return Detection([], 0.0, 0.0)
        if self._presence is None:
            with _quiet():
                self._presence = PresenceGraph()
        scores = [self._presence(picture, region) for region in found.hand_rects_from_palm_detections]
        return Detection(_hands_of(found), max(palms), max(scores))

    def _found_in(self, picture: np.ndarray) -> Any:
        global _warned
        if _warned:
            return self._process(picture)
        with _quiet():  # The first hand of a process draws one more warning.
            found = self._process(picture)
            _warned = bool(found.multi_hand_landmarks)
        return found

    def _process(self, picture: np.ndarray) -> Any:
        return self._hands.process(input_data={"image": picture})


def _hands_of(found: Any) -> list[Hand]:
    return [
        Hand(
            np.array([[point.x, point.y, point.z] for point in points.landmark], np.float32),
            side.classification[0].score,
            # MediaPipe takes every picture for a mirrored selfie.
            side.classification[0].label == "Left",
        )
        for points, side in zip(found.multi_hand_landmarks or [], found.multi_handedness or [], strict=True)
    ]


def _enlarged(image: np.ndarray) -> np.ndarray:
    """The picture with a shorter side of at least 256 pixels.

    MediaPipe enlarges its crop of the hand bilinearly to 224 pixels. Where a smoother filter did that before, its
    landmarks are nearer to the true ones: on rendered pictures of 64 pixels by 4 %.
    """
    height, width = image.shape[:2]
    if min(height, width) >= _LEAST_SIDE:
        return np.ascontiguousarray(image)
    scale = _LEAST_SIDE / min(height, width)
    size = (round(width * scale), round(height * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what MediaPipe's libraries write to the process's standard error, past Python and any setting."""
    with _quiet_lock:
        sys.stderr.flush()
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)


def detect_hands(
    directory: Path,
    records: Sequence["ImageRecord"],
    *,
    min_detection_confidence: float,
    progress: Callable[[int, int], None] | None = None,
) -> Landmarks:
    """The labelled hand of every image.

    Of up to two hands that are found it is the one whose box overlaps the record's `bbox` most, a miss if by less
    than `MIN_IOU`; without a label it is the largest.

    Args:
        directory: of the image set.
        records: the images to look at, in the order of the result.
        min_detection_confidence: of the palm detector, 0 to 1.
        progress: called with the images done and all of them.

    Raises:
        Hand1000Error: an image that can not be read; the message names it.
    """
    paths = [directory / record.file_name for record in records]
    rows = Landmarks(
        np.zeros((len(records), NUM_LANDMARKS, 3), np.float32),
        np.zeros(len(records), bool),
        np.zeros(len(records), np.float32),
        np.zeros(len(records), bool),
        tuple(record.file_name for record in records),
    )
    detected = iter_detections(paths, min_detection_confidence=min_detection_confidence, max_hands=2)
    for index, (record, (_, hands)) in enumerate(zip(records, detected, strict=True)):
        hand = match_labelled_hand(hands, record.bbox)
        if hand is not None:
            rows.landmarks[index], rows.score[index], rows.right[index] = hand.landmarks, hand.score, hand.right
            rows.found[index] = True
        if progress:
            progress(index + 1, len(records))
    return rows


def iter_detections(
    paths: Sequence[Path], *, min_detection_confidence: float, max_hands: int
) -> Iterator[tuple[np.ndarray, list[Hand]]]:
    """Each picture, (S, S, 3) uint8 RGB, with its hands, in the order of `paths`; two at a time are worked on.

    A picture's result does not depend on the others.

    Raises:
        UnreadableImage: a file is no picture, or not a square one.
    """
    return _in_images(paths, HandDetector.detect, min_detection_confidence, max_hands)


def detect_with_scores(
    paths: Sequence[Path], *, min_detection_confidence: float, max_hands: int
) -> Iterator[tuple[np.ndarray, Detection]]:
    """As `iter_detections`, with scores."""
    return _in_images(paths, HandDetector.look, min_detection_confidence, max_hands)


def _in_images(
    paths: Sequence[Path], see: Callable[[HandDetector, np.ndarray], T], confidence: float, max_hands: int
) -> Iterator[tuple[np.ndarray, T]]:
    idle: SimpleQueue[HandDetector] = SimpleQueue()

    def work(path: Path) -> tuple[np.ndarray, T]:
        image = read_square(path)
        detector = idle.get()
        try:
            return image, see(detector, image)
        finally:
            idle.put(detector)

    with contextlib.ExitStack() as stack:
        for _ in range(min(_WORKERS, len(paths))):
            idle.put(stack.enter_context(HandDetector(confidence, max_hands)))
        pool = stack.enter_context(ThreadPoolExecutor(_WORKERS))
        waiting: deque[Any] = deque()
        for path in paths:
            waiting.append(pool.submit(work, path))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def read_square(path: Path) -> np.ndarray:
    """The pixels of an image set's picture, (S, S, 3) uint8 RGB.

    Raises:
        UnreadableImage: the file is no picture, or not a square one: relative coordinates are comparable between x
            and y in squares alone.
    """
    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).replace(str(path), "file").split())
        raise UnreadableImage(path, f"can not be read ({reason}); make the image set again") from error
    if pixels.shape[0] != pixels.shape[1]:
        size = f"{pixels.shape[1]}x{pixels.shape[0]}"
        raise UnreadableImage(path, f"{size} pixels; image sets are square: make it with the data preparation")
    return pixels


def match_labelled_hand(hands: Sequence[Hand], bbox: "BBox | None") -> Hand | None:
    """The hand in the labelled box, as `detect_hands` chooses it; None if there is none."""
    if bbox is None:
        return max(hands, key=lambda hand: hand.box[2] * hand.box[3], default=None)
    best = max(hands, key=lambda hand: box_iou(hand.box, bbox), default=None)
    return best if best is not None and box_iou(best.box, bbox) >= MIN_IOU else None


def box_iou(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    """Intersection over union of two boxes (x, y, width, height), 0 to 1."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / max(a[2] * a[3] + b[2] * b[3] - shared, 1e-12)
