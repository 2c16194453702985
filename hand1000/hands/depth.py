"""Depth maps of hands from MediaPipe's landmarks alone.

HandRefiner (Lu et al., 2023, arXiv 2311.17957) renders a fitted MANO mesh, whose licence forbids redistribution. Here a
hand consists of twenty tapered capsules, one per bone, and four plates for the palm; their thickness is proportional to
the palm. A pixel shows the point nearest to the viewer.
"""

from collections.abc import Iterable

import numpy as np

from hand1000.data.render.skeleton import HandShape
from hand1000.hands.landmarks import NUM_LANDMARKS

NEAR, FAR = 1.0, 0.2
"""Depths of the nearest and the farthest point of a hand; that of the background is 0."""

_KNUCKLES = (5, 9, 13, 17)
_PLATES = ((0, 1, 5), (0, 5, 9), (0, 9, 13), (0, 13, 17))
_SPACING = 0.3
"""Distance of neighbouring spheres relative to their radius: the dents between them are 1 % of it deep."""

_MIN_SIDE = 256
"""Least side of a rendered map. Smaller maps are averages of larger ones, as a finger would be 2 or 3 pixels wide."""


def render_hand_depth(hands: Iterable[np.ndarray], size: int) -> np.ndarray:
    """Render the depth map, (size, size) float32, of hands with landmarks (21, 3) (`Hand.landmarks`).

    The background is 0. Each hand is `FAR` to `NEAR` between its own farthest and nearest point, because MediaPipe does
    not return the distance between two hands.
    """
    factor = -(-_MIN_SIDE // size)
    side = size * factor
    depth = np.zeros((side, side), np.float32)
    for landmarks in hands:
        depth = np.maximum(depth, _render_hand(landmarks.astype(np.float64) * side, side))
    return depth.reshape(size, factor, size, factor).mean(axis=(1, 3))


def palm_length(landmarks: np.ndarray) -> float:
    """Return the mean distance from the wrist to the four knuckles, in the landmarks' unit."""
    return float(np.linalg.norm(landmarks[_KNUCKLES, :] - landmarks[0], axis=1).mean())


def _render_hand(points: np.ndarray, size: int) -> np.ndarray:
    centers, radii = _spheres(points)
    nearest = np.full((size, size), np.inf)
    for (x, y, z), radius in zip(centers, radii, strict=True):
        left, top = (max(0, int(np.ceil(value - radius - 0.5))) for value in (x, y))
        right, bottom = (min(size, int(np.floor(value + radius - 0.5)) + 1) for value in (x, y))
        if left >= right or top >= bottom:
            continue
        across = (np.arange(left, right) + 0.5 - x) ** 2
        down = (np.arange(top, bottom) + 0.5 - y) ** 2
        inside = radius**2 - down[:, None] - across
        window = nearest[top:bottom, left:right]
        np.minimum(window, np.where(inside >= 0, z - np.sqrt(np.maximum(inside, 0)), np.inf), out=window)
    covered = np.isfinite(nearest)
    if not covered.any():
        return np.zeros((size, size), np.float32)
    near, far = nearest[covered].min(), nearest[covered].max()
    depth = np.zeros((size, size), np.float32)
    depth[covered] = NEAR - (NEAR - FAR) * (nearest[covered] - near) / max(far - near, 1e-9)
    return depth


def _spheres(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centers (K, 3) and radii (K,) of the spheres that fill the capsules and the plates of landmarks (21, 3)."""
    thickness = np.empty(NUM_LANDMARKS)
    thickness[1:] = HandShape().radii.reshape(-1)
    thickness[0] = thickness[1]
    # A palm shorter than a pixel would need an unbounded number of spheres.
    thickness = thickness * max(palm_length(points), 1.0)
    centers, radii = [], []
    for joint in range(1, NUM_LANDMARKS):
        parent = 0 if joint % 4 == 1 else joint - 1
        count = _num_spheres(points[parent], points[joint], min(thickness[parent], thickness[joint]))
        along = np.linspace(0, 1, count)[:, None]
        centers.append(points[parent] + along * (points[joint] - points[parent]))
        radii.append(thickness[parent] + along[:, 0] * (thickness[joint] - thickness[parent]))
    for corners in _PLATES:
        a, b, c = points[list(corners)]
        thick = thickness[list(corners)]
        count = max(_num_spheres(*ends, thick.min()) for ends in ((a, b), (a, c), (b, c)))
        first, second = (grid.reshape(-1) for grid in np.meshgrid(*[np.linspace(0, 1, count)] * 2))
        weights = np.stack([1 - first - second, first, second], axis=1)[first + second <= 1 + 1e-9]
        centers.append(weights @ np.stack([a, b, c]))
        radii.append(weights @ thick)
    return np.concatenate(centers), np.concatenate(radii)


def _num_spheres(a: np.ndarray, b: np.ndarray, radius: float) -> int:
    return int(np.ceil(np.linalg.norm(b - a) / (_SPACING * radius))) + 1
