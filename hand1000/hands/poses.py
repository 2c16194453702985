"""The pose of each image's own hand: how it differs from the mean hand f of its gesture.

Notation, as in `docs/method.md`:
    f_i     gesture feature of image i                                    (63,)
    f       mean of f_i over the images of its gesture                    (63,)
    c_r     principal components of f_i - f                               (R, 63)
    d_i     coefficients of image i on the components, and its placement  (R + 3,)

f_i is approximately f + sum_r d_ir c_r. The last three values of d_i are what f leaves out on purpose: the wrist's x
and y in the image and the logarithm of the hand's size. The paper knows f alone.
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

_FITS = 3
"""Number of fits of the components, each on the hands that are inliers of the fit before."""

_MAX_DEVIATION = 4.0
"""Standard deviations beyond which a value is more likely an error of MediaPipe than a pose."""


@dataclass(frozen=True)
class HandPoses(TensorRecord, stem="poses", remedy="run Stage I again"):
    """The poses of the hands in N images of K gestures.

    Attributes:
        poses: d, (N, R + 3) float32, each column of mean square 1 over all images; 0, the mean hand, for an image
            without a hand. (N, 0) if R is 0.
        components: c, (R, 63) float32.
    """

    poses: np.ndarray
    components: np.ndarray
    file_names: tuple[str, ...]
    gestures: tuple[str, ...]

    def select(self, file_names: Sequence[str]) -> Self:
        """Return the rows of some of the images, in the order of `file_names`."""
        index = {name: row for row, name in enumerate(self.file_names)}
        return replace(self, poses=self.poses[[index[name] for name in file_names]], file_names=tuple(file_names))

    def tensor(self) -> "torch.Tensor | None":
        """Return `poses` as a tensor; None if R is 0, where all hands are the mean hand."""
        import torch

        return torch.from_numpy(self.poses) if self.poses.shape[1] else None


def fit_poses(
    landmarks: Landmarks, gesture_by_image: Mapping[str, str], features: Sequence[GestureFeature], components: int
) -> HandPoses:
    """Find the R components along which the hands of all gestures vary most about their gesture's mean.

    `gesture_by_image` is by file name, and `features` are of one kind. With fewer than R hands, or features that do not
    vary, the surplus components are 0.
    """
    gestures = tuple(feature.gesture for feature in features)
    if not components:
        no_poses = np.zeros((len(landmarks), 0), np.float32)
        return HandPoses(no_poses, np.zeros((0, FEATURE_DIM), np.float32), landmarks.file_names, gestures)
    gesture_ids = np.array([gestures.index(gesture_by_image[name]) for name in landmarks.file_names])[landmarks.found]
    deviations = gesture_feature(landmarks, kind=features[0].kind).astype(np.float64)
    placements = _placements(landmarks.landmarks[landmarks.found])
    inliers = np.ones(len(deviations), bool)
    for _ in range(_FITS):
        # A hand with wrong landmarks would otherwise become a component by itself.
        for gesture_id in set(gesture_ids.tolist()):
            members = gesture_ids == gesture_id
            trusted = members & inliers if (members & inliers).any() else members
            for values in (deviations, placements):
                values[members] -= values[trusted].mean(axis=0)
        directions = _principal_components(deviations[inliers], components)
        lengths = np.maximum((directions**2).sum(axis=1), 1e-12)
        placement_std = np.maximum(placements[inliers].std(axis=0), 1e-6)
        coefficients = np.column_stack([deviations @ directions.T / lengths, placements / placement_std])
        inliers = (np.abs(coefficients) <= _MAX_DEVIATION).all(axis=1)
    poses = np.zeros((len(landmarks), coefficients.shape[1]), np.float32)
    poses[landmarks.found] = coefficients.clip(-_MAX_DEVIATION, _MAX_DEVIATION)
    return HandPoses(poses, directions.astype(np.float32), landmarks.file_names, gestures)


def _principal_components(deviations: np.ndarray, count: int) -> np.ndarray:
    """First principal components of (M, 63), (count, 63), each as long as its standard deviation; 0 beyond the rank."""
    _, sizes, right = np.linalg.svd(deviations, full_matrices=False)
    # The sign of a component is arbitrary, but must not depend on the linear algebra library.
    right *= np.sign(right[np.arange(len(right)), np.abs(right).argmax(axis=1)])[:, None]
    sizes = np.where(sizes > 1e-6 * max(sizes[0], 1e-6), sizes, 0.0) / np.sqrt(len(deviations))
    directions = np.zeros((count, FEATURE_DIM))
    directions[: len(sizes)] = (right * sizes[:, None])[:count]
    return directions


def _placements(landmarks: np.ndarray) -> np.ndarray:
    """The wrist's x and y in the image, and the logarithm of the hand's size, (M, 3)."""
    return np.column_stack([landmarks[:, 0, :2], np.log(np.maximum(hand_scales(landmarks), 1e-6))])
