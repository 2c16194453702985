"""Depth maps of hands, from MediaPipe's landmarks alone.

HandRefiner (Lu et al., 2023, arXiv 2311.17957) takes them from a fitted MANO mesh, whose licence forbids to ship it.
Here a hand is twenty tapered capsules, one a bone, and four plates for the palm, about the 21 landmarks; how thick they
are follows from the palm's size. What is nearest to the viewer counts.
"""

from collections.abc import Iterable

import numpy as np

from hand1000.data.render.skeleton import HandShape
from hand1000.hands.landmarks import NUM_LANDMARKS

NEAR, FAR = 1.0, 0.2
"""Depth of the nearest and the farthest point of a hand; the background's is 0."""

_KNUCKLES = (5, 9, 13, 17)
_PLATES = ((0, 1, 5), (0, 5, 9), (0, 9, 13), (0, 13, 17))
_SPACING = 0.3
"""Between the centres of two spheres, against their radius: the dents between them are one in a hundred deep."""

_LEAST_SIDE = 256
"""A small picture's map is drawn larger and averaged, since a finger is only two or three pixels wide there."""


def render_hand_depth(hands: Iterable[np.ndarray], size: int) -> np.ndarray:
    """The depth map of a picture.

    Args:
        hands: the landmarks of each hand in it, (21, 3), relative to the square picture (`Hand.landmarks`).
        size: its side in pixels.

    Returns:
        (size, size) float32: 0 for background, 0.2 to 1 for a hand, each between its own farthest and nearest point,
        since MediaPipe does not tell how far apart two hands are.
    """
    finer = -(-_LEAST_SIDE // size)
    side = size * finer
    whole = np.zeros((side, side), np.float32)
    for landmarks in hands:
        whole = np.maximum(whole, _one_hand(landmarks.astype(np.float64) * side, side))
    return whole.reshape(size, finer, size, finer).mean(axis=(1, 3))


def palm_length(landmarks: np.ndarray) -> float:
    """Mean distance from the wrist to the four knuckles, in the landmarks' unit."""
    return float(np.linalg.norm(landmarks[_KNUCKLES, :] - landmarks[0], axis=1).mean())


def _one_hand(points: np.ndarray, size: int) -> np.ndarray:
    centres, radii = _spheres(points)
    nearest = np.full((size, size), np.inf)
    for (x, y, z), radius in zip(centres, radii, strict=True):
        left, top = (max(0, int(np.ceil(value - radius - 0.5))) for value in (x, y))
        right, bottom = (min(size, int(np.floor(value + radius - 0.5)) + 1) for value in (x, y))
        if left >= right or top >= bottom:
            continue
        across = (np.arange(left, right) + 0.5 - x) ** 2
        down = (np.arange(top, bottom) + 0.5 - y) ** 2
        inside = radius**2 - down[:, None] - across
        part = nearest[top:bottom, left:right]
        np.minimum(part, np.where(inside >= 0, z - np.sqrt(np.maximum(inside, 0)), np.inf), out=part)
    covered = np.isfinite(nearest)
    if not covered.any():
        return np.zeros((size, size), np.float32)
    near, far = nearest[covered].min(), nearest[covered].max()
    depth = np.zeros((size, size), np.float32)
    depth[covered] = NEAR - (NEAR - FAR) * (nearest[covered] - near) / max(far - near, 1e-9)
    return depth


def _spheres(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres (K, 3) and radii (K,) of the spheres that fill the capsules and the plates of landmarks (21, 3)."""
    thickness = np.empty(NUM_LANDMARKS)
    thickness[1:] = HandShape().radii.reshape(-1)
    thickness[0] = thickness[1]
    # A hand may be as small as a pixel, but what is smaller would make spheres without end.
    thickness = thickness * max(palm_length(points), 1.0)
    centres, radii = [], []
    for joint in range(1, NUM_LANDMARKS):
        before = 0 if joint % 4 == 1 else joint - 1
        count = _count(points[before], points[joint], min(thickness[before], thickness[joint]))
        along = np.linspace(0, 1, count)[:, None]
        centres.append(points[before] + along * (points[joint] - points[before]))
        radii.append(thickness[before] + along[:, 0] * (thickness[joint] - thickness[before]))
    for corners in _PLATES:
        a, b, c = points[list(corners)]
        thick = thickness[list(corners)]
        count = max(_count(a, b, thick.min()), _count(a, c, thick.min()), _count(b, c, thick.min()))
        first, second = (grid.reshape(-1) for grid in np.meshgrid(*[np.linspace(0, 1, count)] * 2))
        weights = np.stack([1 - first - second, first, second], axis=1)[first + second <= 1 + 1e-9]
        centres.append(weights @ np.stack([a, b, c]))
        radii.append(weights @ thick)
    return np.concatenate(centres), np.concatenate(radii)


def _count(a: np.ndarray, b: np.ndarray, radius: float) -> int:
    return int(np.ceil(np.linalg.norm(b - a) / (_SPACING * radius))) + 1
