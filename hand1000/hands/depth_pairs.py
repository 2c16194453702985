"""Rendered pictures with the depth maps of their hands: what a ControlNet learns from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from hand1000.core.errors import Hand1000Error
from hand1000.data.synthetic import mirror_images, pretraining_records
from hand1000.hands.depth import palm_length, render_hand_depth
from hand1000.hands.detector import iter_detections
from hand1000.storage.files import read_json, write_json
from hand1000.storage.tensors import TensorRecord


@dataclass(frozen=True)
class DepthPairs(TensorRecord, stem="pairs", remedy="make them again"):
    """N pictures.

    Attributes:
        images: (N, S, S, 3) uint8 RGB.
        depths: (N, S, S) uint8, 255 for a depth of 1 (`hand1000.hands.depth`).
        boxes: (N, 4) float32, the hand's x, y, width and height relative to the picture.
        captions: N.
    """

    images: np.ndarray
    depths: np.ndarray
    boxes: np.ndarray
    captions: tuple[str, ...]

    def first(self, count: int) -> Self:
        """The first of them."""
        return type(self)(self.images[:count], self.depths[:count], self.boxes[:count], self.captions[:count])

    def with_mirrored(self) -> Self:
        """All pairs, then all of them as a mirror shows them."""
        boxes = self.boxes.copy()
        boxes[:, 0] = 1 - boxes[:, 0] - boxes[:, 2]
        return type(self)(
            np.concatenate([self.images, self.images[:, :, ::-1]]),
            np.concatenate([self.depths, self.depths[:, :, ::-1]]),
            np.concatenate([self.boxes, boxes]),
            (*self.captions, *(mirror_images(caption) for caption in self.captions)),
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
    progress: Callable[[int, int], None] | None = None,
) -> DepthPairs:
    """The pictures of a rendered set whose hands MediaPipe finds where they are.

    The maps are made of MediaPipe's landmarks, not of the renderer's, because that is what they are made of when a
    picture is mended; where it is wrong there is nothing to learn.

    Args:
        root: of `render_synthetic_images`.
        max_tilt: degrees, as for `load_synthetic_images`.
        max_error: mean distance of the landmarks from the true ones, in lengths of the palm; a picture with more is
            left out.
        min_detection_confidence: of the palm detector, 0 to 1.
        progress: called with the pictures done and all of them.

    Raises:
        Hand1000Error: no picture is left.
    """
    records = list(pretraining_records(root, max_tilt))
    images, depths, boxes, captions = [], [], [], []
    found = iter_detections(
        [record.path for record in records], min_detection_confidence=min_detection_confidence, max_hands=1
    )
    for index, (record, (image, hands)) in enumerate(zip(records, found, strict=True)):
        if hands and landmark_error(hands[0].landmarks, record.landmarks) <= max_error:
            images.append(image)
            depths.append((render_hand_depth([hands[0].landmarks], len(image)) * 255).round().astype(np.uint8))
            boxes.append(record.box)
            captions.append(record.caption)
        if progress:
            progress(index + 1, len(records))
    if not images:
        raise Hand1000Error(f"{root}: no hand was found where it is; render more pictures, or raise max_error")
    return DepthPairs(np.stack(images), np.stack(depths), np.array(boxes, np.float32), tuple(captions))


def landmark_error(landmarks: np.ndarray, others: np.ndarray | Sequence[Sequence[float]]) -> float:
    """Mean distance in the picture of (21, 2 or 3) landmarks from others, in lengths of the first ones' palm."""
    away = np.linalg.norm(landmarks[:, :2] - np.asarray(others)[:, :2], axis=1)
    return float(away.mean() / max(palm_length(landmarks), 1e-6))
