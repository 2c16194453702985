"""Stage I: the gesture feature f, the mean of a gesture's hand landmarks (paper, section 3.2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import AliasChoices, BaseModel, Field

from hand1000.core.errors import Hand1000Error
from hand1000.hands.landmarks import NUM_LANDMARKS, Landmarks
from hand1000.storage.tensors import TensorRecord

if TYPE_CHECKING:
    import torch

Kind = Literal["normalized", "raw", "none"]

FEATURE_DIM = NUM_LANDMARKS * 3

_WRIST = 0
_KNUCKLES = [5, 9, 13, 17]
_MAX_LISTED = 3


def normalize_landmarks(landmarks: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Remove position, size and side of hands, (N, 21, 3) in square images, and keep their rotation; float32.

    The wrist becomes the origin and the mean distance from it to the four knuckles 1. These bones keep their length in
    every gesture. The distance includes z, so that a hand that points at the camera is not enlarged, and it is a mean
    of four, so that one wrong landmark shifts the scale by a quarter of its error. Left hands are mirrored.
    """
    centered = landmarks.astype(np.float64) - landmarks[:, _WRIST : _WRIST + 1]
    centered /= np.maximum(hand_scales(landmarks), 1e-6)[:, None, None]
    centered[~np.asarray(right, bool), :, 0] *= -1
    return centered.astype(np.float32)


def hand_scales(landmarks: np.ndarray) -> np.ndarray:
    """Return the mean distance from wrist to knuckles of hands (N, 21, 3), in the landmarks' unit: (N,)."""
    palms = landmarks[:, _KNUCKLES].astype(np.float64) - landmarks[:, _WRIST : _WRIST + 1]
    return np.linalg.norm(palms, axis=2).mean(axis=1)


def gesture_feature(landmarks: Landmarks, *, kind: Kind) -> np.ndarray:
    """Return the feature of each of the M hands that were found, (M, 63) float32.

    Kind `normalized` applies `normalize_landmarks`, `raw` keeps MediaPipe's x, y and z, which the paper averages, and
    `none` is 0 for every hand.
    """
    hands = landmarks.landmarks[landmarks.found]
    if kind == "normalized":
        hands = normalize_landmarks(hands, landmarks.right[landmarks.found])
    elif kind == "none":
        hands = np.zeros_like(hands)
    return hands.reshape(len(hands), FEATURE_DIM)


@dataclass(frozen=True)
class GestureFeature:
    """The gesture feature f of one gesture.

    Attributes:
        mean: f, (63,) float32, the mean over the images with a hand.
        std: (63,) float32, the standard deviation over the same images.
        images: Number of images.
        found: Number of images with a hand.
        images_without_hand: File names of the other images.
    """

    mean: np.ndarray
    std: np.ndarray
    gesture: str
    kind: Kind
    images: int
    found: int
    images_without_hand: tuple[str, ...]

    def mean_tensor(self) -> "torch.Tensor":
        """Return `mean` as a tensor, (63,) float32."""
        import torch

        return torch.from_numpy(self.mean.copy())


class _ImageCounts(BaseModel):
    gesture: str
    images: int
    found: int
    images_without_hand: tuple[str, ...] = Field(validation_alias=AliasChoices("images_without_hand", "missed"))


@dataclass(frozen=True)
class _FeatureFiles(TensorRecord, stem="gesture", remedy="run Stage I again"):
    """The features of K gestures as files; `mean` and `std` are (K, 63)."""

    mean: np.ndarray
    std: np.ndarray
    feature: Any
    gestures: tuple[_ImageCounts, ...]

    def _validate(self) -> None:
        for name, array in (("mean", self.mean), ("std", self.std)):
            if array.shape != (len(self.gestures), FEATURE_DIM):
                raise ValueError(f"{name} of shape {array.shape}, not ({len(self.gestures)}, {FEATURE_DIM})")


def save_features(directory: Path, features: Sequence[GestureFeature]) -> None:
    """Write the features of one or several gestures, all of one kind, as `gesture.safetensors` and `gesture.json`."""
    _FeatureFiles(
        mean=np.stack([feature.mean for feature in features]),
        std=np.stack([feature.std for feature in features]),
        feature=features[0].kind,
        gestures=tuple(_ImageCounts.model_validate(feature, from_attributes=True) for feature in features),
    ).save(directory)


def load_features(directory: Path) -> tuple[GestureFeature, ...]:
    """Read what `save_features` wrote, in its order.

    Raises:
        Hand1000Error: A file is missing or malformed.
    """
    files = _FeatureFiles.load(directory)
    return tuple(
        GestureFeature(mean, std, kind=files.feature, **vars(counts))
        for mean, std, counts in zip(files.mean, files.std, files.gestures, strict=True)
    )


def compute_mean_feature(landmarks: Landmarks, *, gesture: str, kind: Kind, max_missed: float) -> GestureFeature:
    """Average the features of a gesture's images, whatever their order.

    Raises:
        Hand1000Error: No image has a hand, or the share of images without one is greater than `max_missed`.
    """
    landmarks = Landmarks.concatenate([landmarks])
    without = tuple(name for name, found in zip(landmarks.file_names, landmarks.found, strict=True) if not found)
    total = len(landmarks)
    if len(without) == total or len(without) > max_missed * total:
        limit = f", more than stage1.max_missed = {max_missed:g} allows" if len(without) < total else ""
        raise Hand1000Error(
            f"{gesture}: no hand found in {len(without)} of {total} training images{limit} "
            f"(such as {', '.join(without[:_MAX_LISTED])}); lower stage1.min_detection_confidence, "
            "or use images with larger hands"
        )
    features = gesture_feature(landmarks, kind=kind).astype(np.float64)
    return GestureFeature(
        mean=features.mean(axis=0).astype(np.float32),
        std=features.std(axis=0).astype(np.float32),
        gesture=gesture,
        kind=kind,
        images=total,
        found=total - len(without),
        images_without_hand=without,
    )
