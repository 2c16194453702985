"""Whether hands could be hands: their bones' lengths and joints' angles against those of real ones.

A hand is told by the lengths of its 20 bones, each against the palm, as logarithms, and the 15 angles between a
finger's bones; where it is, how large and how it is turned do not enter. What is far from the real hands, in units of
how those vary together (Mahalanobis' distance), is implausible.
"""

from dataclasses import dataclass

import numpy as np

BONES = [(0, 1), (1, 2), (2, 3), (3, 4), (0, 5), (5, 6), (6, 7), (7, 8), (0, 9), (9, 10), (10, 11), (11, 12)]
BONES += [(0, 13), (13, 14), (14, 15), (15, 16), (0, 17), (17, 18), (18, 19), (19, 20)]
"""MediaPipe's landmarks that each bone joins, from the wrist outwards, four a finger."""

MIN_REFERENCE_HANDS = 40
"""Real hands, below which their own spread is not known well enough."""


def compute_hand_shapes(landmarks: np.ndarray) -> np.ndarray:
    """Bones and joints of hands.

    Args:
        landmarks: (M, 21, 3), relative to square pictures.

    Returns:
        (M, 35) float64: the 20 logarithms, then the 15 angles in radians.
    """
    landmarks = landmarks.astype(np.float64)
    bones = np.stack([landmarks[:, last] - landmarks[:, first] for first, last in BONES], axis=1)
    lengths = np.maximum(np.linalg.norm(bones, axis=2), 1e-6)
    palm = lengths[:, [4, 8, 12, 16]].mean(axis=1, keepdims=True)
    fingers = (bones / lengths[:, :, None]).reshape(-1, 5, 4, 3)
    cosines = np.sum(fingers[:, :, 1:] * fingers[:, :, :-1], axis=3)
    angles = np.arccos(np.clip(cosines, -1, 1)).reshape(len(landmarks), 15)
    return np.concatenate([np.log(lengths / palm), angles], axis=1)


@dataclass(frozen=True)
class Anatomy:
    """The spread of real hands' shapes, and the distance that one in a hundred of them exceeds."""

    mean: np.ndarray
    precision: np.ndarray
    limit: float

    def distances(self, shapes: np.ndarray) -> np.ndarray:
        """(M, 35) to (M,)."""
        return _distances(shapes, self.mean, self.precision)

    def implausible(self, landmarks: np.ndarray) -> float:
        """The share of hands, (M, 21, 3) with M above 0, beyond the limit."""
        return float(np.mean(self.distances(compute_hand_shapes(landmarks)) > self.limit))


def fit_anatomy(landmarks: np.ndarray) -> Anatomy | None:
    """Learn it from real hands, (M, 21, 3); None from fewer than `MIN_REFERENCE_HANDS`.

    Each half's distances are told by the other half's spread: by its own, every hand would seem nearer than it is.
    """
    from sklearn.covariance import LedoitWolf

    if len(landmarks) < MIN_REFERENCE_HANDS:
        return None
    shapes = compute_hand_shapes(landmarks)

    def spread(part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        fitted = LedoitWolf().fit(part)
        return fitted.location_, fitted.precision_

    halves = shapes[::2], shapes[1::2]
    other = [_distances(half, *spread(rest)) for half, rest in (halves, halves[::-1])]
    return Anatomy(*spread(shapes), limit=float(np.quantile(np.concatenate(other), 0.99)))


def _distances(shapes: np.ndarray, mean: np.ndarray, precision: np.ndarray) -> np.ndarray:
    away = shapes - mean
    return np.sqrt(np.maximum(np.einsum("mi,ij,mj->m", away, precision, away), 0.0))
