"""MediaPipe Hands on single images: landmarks, handedness and scores."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from PIL import Image

from hand1000.hands.hand_graph import GraphOutputs, HandGraph

_MIN_SIDE = 256
_MARGIN = 0.25  # Of the image's side, on each side; 0.17 finds fewer cut-off hands, 0.5 no more.

_stderr_lock = threading.Lock()
_first_hand_detected = False


@dataclass(frozen=True)
class Hand:
    """One hand in an image.

    Attributes:
        landmarks: (21, 3) float32; x and y relative to the image from its upper left corner, z the depth relative to
            the wrist in about the scale of x, smaller is nearer. Points may be outside 0 to 1.
        score: MediaPipe's confidence in the handedness, 0.5 to 1; it has no score of there being a hand.
        right: Whether it is a person's right hand.
    """

    landmarks: np.ndarray
    score: float
    right: bool

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x, y, width and height of the landmarks' box, relative to the image."""
        low, high = self.landmarks[:, :2].min(0), self.landmarks[:, :2].max(0)
        return float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1])


@dataclass(frozen=True)
class Detection:
    """The hands in an image with the scores of MediaPipe's two networks.

    Attributes:
        hands: Hands in MediaPipe's order.
        palm_score: Highest score of the palm detector, `min_detection_confidence` to 1; 0 without a palm.
        presence: Highest score of the landmark network that a palm belongs to a hand, 0 to 1; 0 without a palm.
            `hands` leaves out hands below 0.5.
    """

    hands: list[Hand]
    palm_score: float
    presence: float


class HandDetector:
    """MediaPipe Hands for unrelated images; a context manager.

    Args:
        min_detection_confidence: Threshold of the palm detector, 0 to 1.
        max_hands: Maximum number of hands per image.
    """

    def __init__(self, min_detection_confidence: float, max_hands: int = 1) -> None:
        self._confidence, self._max_hands = min_detection_confidence, max_hands
        self._graph: HandGraph | None = None

    def __enter__(self) -> Self:
        with suppress_stderr():
            self._graph = HandGraph(self._confidence, self._max_hands)
            # The models load, with warnings, in the background; a first image waits for them.
            self._graph(np.zeros((_MIN_SIDE, _MIN_SIDE, 3), np.uint8))
        return self

    def __exit__(self, *_: object) -> None:
        if self._graph is not None:
            self._graph.close()

    def detect(self, image: np.ndarray) -> list[Hand]:
        """Return the hands in an image, (H, W, 3) uint8 RGB, in MediaPipe's order."""
        return self.detect_with_scores(image).hands

    def detect_with_margin(self, image: np.ndarray) -> list[Hand]:
        """Return the hands in an image that `detect` may miss, because they fill the image or are cut off.

        MediaPipe's palm detector knows palms in a wider scene. Repeating the border's pixels around the image gives it
        one: of 60 rendered hands cropped to their box it finds 59 instead of 53, of 60 with cut-off fingers 59 instead
        of 41 (`python -m benchmarks.hands_found`).
        """
        margin = round(_MARGIN * min(image.shape[:2]))
        padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), "edge")
        height, width = image.shape[:2]
        scale = np.array([padded.shape[1] / width, padded.shape[0] / height, padded.shape[1] / width], np.float32)
        shift = np.array([margin / width, margin / height, 0.0], np.float32)
        return [replace(hand, landmarks=hand.landmarks * scale - shift) for hand in self.detect(padded)]

    def detect_with_scores(self, image: np.ndarray) -> Detection:
        """Return the hands in an image, (H, W, 3) uint8 RGB, with the scores of both networks."""
        outputs = self._process_quietly(_enlarge(image))
        palm_scores = [palm.score[0] for palm in outputs.palms]
        return Detection(_parse_hands(outputs), max(palm_scores, default=0.0), max(outputs.presence, default=0.0))

    def _process_quietly(self, image: np.ndarray) -> GraphOutputs:
        global _first_hand_detected
        if self._graph is None:
            raise ValueError("a HandDetector is used in a with statement")
        if _first_hand_detected:
            return self._graph(image)
        with suppress_stderr():  # The first hand of a process causes one more warning.
            outputs = self._graph(image)
            _first_hand_detected = bool(outputs.landmarks)
        return outputs


def box_iou(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    """Intersection over union of two boxes (x, y, width, height), 0 to 1."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    intersection = max(width, 0.0) * max(height, 0.0)
    return intersection / max(a[2] * a[3] + b[2] * b[3] - intersection, 1e-12)


@contextlib.contextmanager
def suppress_stderr() -> Iterator[None]:
    """Discard what native libraries write to the process's standard error, which Python cannot redirect."""
    with _stderr_lock:
        sys.stderr.flush()
        stderr, devnull = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            os.close(devnull)


def _parse_hands(outputs: GraphOutputs) -> list[Hand]:
    return [
        Hand(
            np.array([[point.x, point.y, point.z] for point in points.landmark], np.float32),
            handedness.classification[0].score,
            # MediaPipe assumes that every image is a mirrored selfie.
            handedness.classification[0].label == "Left",
        )
        for points, handedness in zip(outputs.landmarks, outputs.handedness, strict=True)
    ]


def _enlarge(image: np.ndarray) -> np.ndarray:
    """Enlarge the image until its shorter side has at least 256 pixels.

    MediaPipe enlarges its crop of the hand bilinearly to 224 pixels. After a smoother filter its landmarks are nearer
    to the true ones, by 4 % on rendered images of 64 pixels.
    """
    height, width = image.shape[:2]
    if min(height, width) >= _MIN_SIDE:
        return np.ascontiguousarray(image)
    scale = _MIN_SIDE / min(height, width)
    size = (round(width * scale), round(height * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
