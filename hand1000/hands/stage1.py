"""Stage I: the gesture feature f, the mean of a gesture's landmarks (paper, section 3.2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel

from hand1000.core.errors import Hand1000Error
from hand1000.hands.landmarks import NUM_LANDMARKS, Landmarks
from hand1000.storage.tensors import TensorRecord

if TYPE_CHECKING:
    import torch

Kind = Literal["normalized", "raw", "none"]

FEATURE_DIM = NUM_LANDMARKS * 3

_WRIST = 0
_KNUCKLES = [5, 9, 13, 17]
_NAMED = 3


def normalize_landmarks(landmarks: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Hands without where and how large they are in their pictures, as right hands; how they are turned is kept.

    The wrist becomes the origin and the mean distance from it to the four knuckles 1. Those are bones, so they keep
    their length in every gesture; they are measured with z, so that a hand that points at the camera is not blown
    up; and over four of them one landmark that is off shifts the scale by a quarter of its error.

    Args:
        landmarks: (N, 21, 3), relative to square pictures.
        right: (N,) bool; the other hands are mirrored.

    Returns:
        (N, 21, 3) float32.
    """
    centred = landmarks.astype(np.float64) - landmarks[:, _WRIST : _WRIST + 1]
    centred /= np.maximum(hand_scales(landmarks), 1e-6)[:, None, None]
    centred[~np.asarray(right, bool), :, 0] *= -1
    return centred.astype(np.float32)


def hand_scales(landmarks: np.ndarray) -> np.ndarray:
    """The mean distance from the wrist to the four knuckles of hands (N, 21, 3), in the landmarks' unit: (N,)."""
    palms = landmarks[:, _KNUCKLES].astype(np.float64) - landmarks[:, _WRIST : _WRIST + 1]
    return np.linalg.norm(palms, axis=2).mean(axis=1)


def gesture_feature(landmarks: Landmarks, *, kind: Kind) -> np.ndarray:
    """The feature of each image in which a hand was found.

    Args:
        landmarks: of the images.
        kind: `normalized` as `normalize_landmarks` does; `raw` is MediaPipe's x, y, z, what the paper averages;
            `none` is 0 for every hand.

    Returns:
        (found, 63) float32: x, y, z of the first landmark, then of the next.
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
        mean: (63,) float32, over the images in which a hand was found.
        std: (63,) float32, their spread.
        gesture: HaGRID's name.
        kind: of the features it is the mean of.
        images: how many were looked at.
        found: in how many the hand was found.
        missed: the names of the others.
    """

    mean: np.ndarray
    std: np.ndarray
    gesture: str
    kind: Kind
    images: int
    found: int
    missed: tuple[str, ...]

    def mean_tensor(self) -> "torch.Tensor":
        """`mean` as a tensor, (63,) float32."""
        import torch

        return torch.from_numpy(self.mean.copy())


class _Counts(BaseModel):
    gesture: str
    images: int
    found: int
    missed: tuple[str, ...]


@dataclass(frozen=True)
class _SavedFeatures(TensorRecord, stem="gesture", remedy="run Stage I again"):
    """The features of K gestures: `mean` and `std` are (K, 63)."""

    mean: np.ndarray
    std: np.ndarray
    feature: Kind
    gestures: tuple[_Counts, ...]

    def _validate(self) -> None:
        for name, array in (("mean", self.mean), ("std", self.std)):
            if array.shape != (len(self.gestures), FEATURE_DIM):
                raise ValueError(f"{name} of shape {array.shape}, not ({len(self.gestures)}, {FEATURE_DIM})")


def save_features(directory: Path, features: Sequence[GestureFeature]) -> None:
    """Write `gesture.safetensors` and `gesture.json`: the features of one gesture or of several, of one kind."""
    _SavedFeatures(
        mean=np.stack([feature.mean for feature in features]),
        std=np.stack([feature.std for feature in features]),
        feature=features[0].kind,
        gestures=tuple(_Counts.model_validate(feature, from_attributes=True) for feature in features),
    ).save(directory)


def load_features(directory: Path) -> tuple[GestureFeature, ...]:
    """Read what `save_features` wrote, in its order.

    Raises:
        Hand1000Error: a file is missing or malformed.
    """
    saved = _SavedFeatures.load(directory)
    return tuple(
        GestureFeature(mean, std, kind=saved.feature, **vars(counts))
        for mean, std, counts in zip(saved.mean, saved.std, saved.gestures, strict=True)
    )


def compute_mean_feature(landmarks: Landmarks, *, gesture: str, kind: Kind, max_missed: float) -> GestureFeature:
    """Average the features of a gesture's images.

    Args:
        landmarks: of the gesture's images; in what order does not matter.
        gesture: HaGRID's name.
        kind: as `gesture_feature` takes it.
        max_missed: share of images without a hand, 0 to 1, up to which they are passed over.

    Raises:
        Hand1000Error: no hand at all, or more images without one than `max_missed` allows.
    """
    landmarks = Landmarks.concatenate([landmarks])
    missed = tuple(name for name, found in zip(landmarks.file_names, landmarks.found, strict=True) if not found)
    total, found = len(landmarks), len(landmarks) - len(missed)
    if found == 0 or len(missed) > max_missed * total:
        shown = ", ".join(missed[:_NAMED])
        limit = f", more than stage1.max_missed = {max_missed:g} allows" if found else ""
        raise Hand1000Error(
            f"{gesture}: no hand found in {len(missed)} of {total} training images{limit} (such as {shown}); "
            "lower stage1.min_detection_confidence or take pictures that show the hand larger"
        )
    features = gesture_feature(landmarks, kind=kind).astype(np.float64)
    return GestureFeature(
        mean=features.mean(axis=0).astype(np.float32),
        std=features.std(axis=0).astype(np.float32),
        gesture=gesture,
        kind=kind,
        images=total,
        found=found,
        missed=missed,
    )
