"""Training pairs of the ControlNet: rendered images with the depth maps of their hands."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from hand1000.core.errors import Hand1000Error
from hand1000.core.progress import ProgressCallback, noop_callback
from hand1000.data.synthetic import iter_synthetic_records, mirror_caption
from hand1000.hands.depth import palm_length, render_hand_depth
from hand1000.hands.detection import iter_detections
from hand1000.hands.detector import HandDetector
from hand1000.storage.files import read_json, write_json
from hand1000.storage.tensors import TensorRecord


@dataclass(frozen=True)
class DepthPairs(TensorRecord, stem="pairs", remedy="build the pairs again"):
    """N images with depth maps.

    Attributes:
        images: (N, S, S, 3) uint8 RGB.
        depths: (N, S, S) uint8, 255 for a depth of 1 (`hand1000.hands.depth`).
        boxes: (N, 4) float32, the hand's x, y, width and height relative to the image.
        captions: Captions of the N images.
    """

    images: np.ndarray
    depths: np.ndarray
    boxes: np.ndarray
    captions: tuple[str, ...]

    def first(self, count: int) -> Self:
        """Return the first `count` pairs."""
        return type(self)(self.images[:count], self.depths[:count], self.boxes[:count], self.captions[:count])

    def with_mirrored(self) -> Self:
        """Return all pairs, followed by their mirror images."""
        boxes = self.boxes.copy()
        boxes[:, 0] = 1 - boxes[:, 0] - boxes[:, 2]
        return type(self)(
            np.concatenate([self.images, self.images[:, :, ::-1]]),
            np.concatenate([self.depths, self.depths[:, :, ::-1]]),
            np.concatenate([self.boxes, boxes]),
            (*self.captions, *(mirror_caption(caption) for caption in self.captions)),
        )

    def _write_values(self, directory: Path, values: dict[str, Any]) -> None:
        write_json(directory / "captions.json", values["captions"])

    @classmethod
    def _read_values(cls, directory: Path) -> dict[str, Any]:
        return {"captions": read_json(directory / "captions.json")}


def build_depth_pairs(
    root: Path,
    *,
    max_tilt: float,
    max_error: float,
    min_detection_confidence: float,
    on_progress: ProgressCallback = noop_callback,
) -> DepthPairs:
    """Pair the images that `render_synthetic_images` wrote with depth maps.

    The maps come from MediaPipe's landmarks, not from the renderer's, because so do the maps of a repair. Hands tilted
    by more than `max_tilt` degrees are left out, and landmarks farther from the true ones than `max_error`, the mean
    distance in palm lengths.

    Raises:
        Hand1000Error: No image is left.
    """
    records = list(iter_synthetic_records(root, max_tilt))
    images, depths, boxes, captions = [], [], [], []
    detections = iter_detections(
        [record.path for record in records],
        HandDetector.detect,
        min_detection_confidence=min_detection_confidence,
        max_hands=1,
    )
    for index, (record, (image, hands)) in enumerate(zip(records, detections, strict=True)):
        if hands and landmark_error(hands[0].landmarks, record.landmarks) <= max_error:
            images.append(image)
            depths.append((render_hand_depth([hands[0].landmarks], len(image)) * 255).round().astype(np.uint8))
            boxes.append(record.box)
            captions.append(record.caption)
        on_progress(index + 1, len(records), {})
    if not images:
        raise Hand1000Error(f"{root}: no hand was detected where it is; render more images, or raise max_error")
    return DepthPairs(np.stack(images), np.stack(depths), np.array(boxes, np.float32), tuple(captions))


def landmark_error(landmarks: np.ndarray, reference: np.ndarray | Sequence[Sequence[float]]) -> float:
    """Return the mean image distance of (21, 2 or 3) landmarks from a reference, in the landmarks' palm lengths."""
    distances = np.linalg.norm(landmarks[:, :2] - np.asarray(reference)[:, :2], axis=1)
    return float(distances.mean() / max(palm_length(landmarks), 1e-6))
