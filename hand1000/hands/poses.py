"""How each image's own hand differs from the mean hand of its gesture: what the mean, f, does not tell.

    f_i     the gesture feature of image i                      (63,)
    f       their mean over the images of its gesture           (63,)
    c_r     the principal components of f_i - f                 (R, 63)
    d_i     how far image i goes along each, and its placement  (R + 3,)

so that f_i = f + sum_r d_ir c_r, as nearly as R components can tell. The last three of d_i tell what f leaves out on
purpose: the wrist's x and y in the picture and how large the hand is. Beyond the paper, which knows f alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from hand1000.hands.landmarks import Landmarks
from hand1000.hands.stage1 import FEATURE_DIM, GestureFeature, gesture_feature, hand_scales
from hand1000.storage.tensors import TensorRecord

if TYPE_CHECKING:
    import torch

PLACEMENT_DIM = 3
"""The wrist's x and y, and the logarithm of the hand's size."""

_FITS = 3
"""Of the components, each to the hands that the one before found usual."""

_FARTHEST = 4.0
"""In standard deviations: what lies beyond is more likely MediaPipe's error than a pose."""


@dataclass(frozen=True)
class HandPoses(TensorRecord, stem="poses", remedy="run Stage I again"):
    """The poses of the hands on N images of K gestures.

    Attributes:
        poses: d, (N, R + 3) float32, each component of mean square 1 over all images; 0, the mean hand, where no hand
            was found. (N, 0) where R is 0.
        components: c, (R, 63) float32.
        file_names: the N images.
        gestures: the K gestures.
    """

    poses: np.ndarray
    components: np.ndarray
    file_names: tuple[str, ...]
    gestures: tuple[str, ...]

    def of(self, file_names: Sequence[str]) -> Self:
        """The rows of some of the images, in the order of `file_names`."""
        place = {name: row for row, name in enumerate(self.file_names)}
        rows = [place[name] for name in file_names]
        return replace(self, poses=self.poses[rows], file_names=tuple(file_names))

    def tensor(self) -> "torch.Tensor | None":
        """`poses` as a tensor, (N, R) float32; None if R is 0: then all hands are the mean one."""
        import torch

        return torch.from_numpy(self.poses) if self.poses.shape[1] else None


def fit_poses(
    landmarks: Landmarks, shown: Mapping[str, str], features: Sequence[GestureFeature], components: int
) -> HandPoses:
    """Find the components in which the hands of all gestures vary most about their gesture's mean.

    Args:
        landmarks: of the images.
        shown: the gesture of each image, by file name.
        features: of the K gestures, of one kind.
        components: R, 0 to 63. Of fewer hands, or of features that do not vary, those without a say are 0.
    """
    names = tuple(one.gesture for one in features)
    if not components:
        nothing = np.zeros((len(landmarks), 0), np.float32)
        return HandPoses(nothing, np.zeros((0, FEATURE_DIM), np.float32), landmarks.file_names, names)
    gesture = np.array([names.index(shown[name]) for name in landmarks.file_names])[landmarks.found]
    own = gesture_feature(landmarks, kind=features[0].kind).astype(np.float64)
    placed = _placements(landmarks.landmarks[landmarks.found])
    usual = np.ones(len(own), bool)
    for _ in range(_FITS):
        # A hand that MediaPipe took for the other one would be a component by itself.
        for index in set(gesture.tolist()):
            shows = gesture == index
            trusted = shows & usual if (shows & usual).any() else shows
            for part in (own, placed):
                part[shows] -= part[trusted].mean(axis=0)
        directions = _principal(own[usual], components)
        lengths = np.maximum((directions**2).sum(axis=1), 1e-12)
        told = np.column_stack([own @ directions.T / lengths, placed / np.maximum(placed[usual].std(axis=0), 1e-6)])
        usual = (np.abs(told) <= _FARTHEST).all(axis=1)
    poses = np.zeros((len(landmarks), told.shape[1]), np.float32)
    poses[landmarks.found] = told.clip(-_FARTHEST, _FARTHEST)
    return HandPoses(poses, directions.astype(np.float32), landmarks.file_names, names)


def _principal(own: np.ndarray, count: int) -> np.ndarray:
    """The first `count` principal components of (M, 63), each as long as its standard deviation; 0 beyond the rank."""
    _, sizes, right = np.linalg.svd(own, full_matrices=False)
    # A component's sign is of no matter, but must not depend on the library that computed it.
    right *= np.sign(right[np.arange(len(right)), np.abs(right).argmax(axis=1)])[:, None]
    sizes = np.where(sizes > 1e-6 * max(sizes[0], 1e-6), sizes, 0.0) / np.sqrt(len(own))
    directions = np.zeros((count, FEATURE_DIM))
    directions[: len(sizes)] = (right * sizes[:, None])[:count]
    return directions


def _placements(landmarks: np.ndarray) -> np.ndarray:
    """(M, 3): the wrist's x and y in the picture, and the logarithm of the hand's size."""
    return np.column_stack([landmarks[:, 0, :2], np.log(np.maximum(hand_scales(landmarks), 1e-6))])
