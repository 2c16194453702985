"""Plausibility of hands: bone lengths and joint angles compared with those of real hands.

The shape of a hand consists of the logarithms of its 20 bone lengths, relative to the palm, and of the 15 angles
between the bones of its fingers. It is independent of position, scale and rotation. A hand is implausible if its
Mahalanobis distance from real hands is larger than that of 99 % of real hands.
"""

from dataclasses import dataclass

import numpy as np

BONES = [(0, 1), (1, 2), (2, 3), (3, 4), (0, 5), (5, 6), (6, 7), (7, 8), (0, 9), (9, 10), (10, 11), (11, 12)]
BONES += [(0, 13), (13, 14), (14, 15), (15, 16), (0, 17), (17, 18), (18, 19), (19, 20)]
"""Pairs of MediaPipe landmarks that each bone connects, from the wrist outwards, four per finger."""

MIN_REFERENCE_HANDS = 40
"""Number of real hands that an estimate of their covariance needs."""

_LIMIT_QUANTILE = 0.99


def compute_hand_shapes(landmarks: np.ndarray) -> np.ndarray:
    """Shapes (M, 35) float64 of landmarks (M, 21, 3): 20 logarithms of bone lengths, then 15 angles in radians.

    The landmarks must be relative to square images.
    """
    landmarks = landmarks.astype(np.float64)
    bones = np.stack([landmarks[:, end] - landmarks[:, start] for start, end in BONES], axis=1)
    lengths = np.maximum(np.linalg.norm(bones, axis=2), 1e-6)
    palm = lengths[:, [4, 8, 12, 16]].mean(axis=1, keepdims=True)
    fingers = (bones / lengths[:, :, None]).reshape(-1, 5, 4, 3)
    cosines = np.sum(fingers[:, :, 1:] * fingers[:, :, :-1], axis=3)
    angles = np.arccos(np.clip(cosines, -1, 1)).reshape(len(landmarks), 15)
    return np.concatenate([np.log(lengths / palm), angles], axis=1)


@dataclass(frozen=True)
class Anatomy:
    """Mean (35,) and inverse covariance (35, 35) of real hands' shapes; 1 % exceed the Mahalanobis distance `limit`."""

    mean: np.ndarray
    precision: np.ndarray
    limit: float

    def distances(self, shapes: np.ndarray) -> np.ndarray:
        """Mahalanobis distances (M,) of shapes (M, 35) from real hands."""
        return _mahalanobis_distances(shapes, self.mean, self.precision)

    def find_implausible(self, landmarks: np.ndarray) -> np.ndarray:
        """Whether the distance of each of the hands (M, 21, 3) exceeds the limit, (M,) bool."""
        return self.distances(compute_hand_shapes(landmarks)) > self.limit


def fit_anatomy(landmarks: np.ndarray) -> Anatomy | None:
    """Fit the distribution to real hands (M, 21, 3); None if M is less than `MIN_REFERENCE_HANDS`.

    The limit is cross-fitted: each half of the hands is measured with the covariance of the other half, because a hand
    is too near to a distribution that was fitted to it.
    """
    from sklearn.covariance import LedoitWolf

    if len(landmarks) < MIN_REFERENCE_HANDS:
        return None
    shapes = compute_hand_shapes(landmarks)

    def fit(part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        fitted = LedoitWolf().fit(part)
        return fitted.location_, fitted.precision_

    halves = shapes[::2], shapes[1::2]
    distances = [_mahalanobis_distances(half, *fit(other)) for half, other in (halves, halves[::-1])]
    return Anatomy(*fit(shapes), limit=float(np.quantile(np.concatenate(distances), _LIMIT_QUANTILE)))


def _mahalanobis_distances(shapes: np.ndarray, mean: np.ndarray, precision: np.ndarray) -> np.ndarray:
    centered = shapes - mean
    return np.sqrt(np.maximum(np.einsum("mi,ij,mj->m", centered, precision, centered), 0.0))
