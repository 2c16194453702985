"""A plain face behind the hand, as in HaGRID's images; `mute` needs its lips."""

import numpy as np

from hand1000.data.render.mesh import Field, Mesh

LIPS = np.array([0.0, -0.52, 0.86])
"""Center of the lips relative to that of the head, in palm lengths."""

CHEST = np.array([0.0, -2.6, 0.2])
"""Point of the chest in front of which two hands make a gesture."""

_VOXEL = 0.07
_BOTTOM, _CHEST_BOTTOM = -4.6, -7.4


def _ball(points: np.ndarray, center: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
    """Return a soft mask of an ellipsoid, (n, 1): 1 inside, 0 outside."""
    square = np.sum(((points - center) / np.array(radii)) ** 2, axis=1, keepdims=True)
    return 1.0 / (1.0 + square**4)


def _ramp(heights: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-np.clip(heights, -30.0, 30.0)))


def face_mesh(skin: np.ndarray, hair: np.ndarray, shirt: np.ndarray, chest: bool = False) -> Mesh:
    """Return a head on shoulders that looks along +z, down to the waist if `chest`.

    `skin`, `hair` and `shirt` are linear colors (3,).

    Its `color` is absolute and not a factor, since the three share the mesh.
    """
    bottom = _CHEST_BOTTOM if chest else _BOTTOM
    field = Field(np.array([-2.6, bottom, -1.3]), np.array([2.6, 1.45, 1.3]), _VOXEL)
    values = field.empty()
    capsules = (
        ((0.0, 0.30, -0.1), (0.0, 0.05, -0.05), 0.92, 0.86, 0.05),
        ((0.0, 0.05, 0.05), (0.0, -0.70, 0.27), 0.74, 0.40, 0.25),
        ((0.0, -0.6, -0.35), (0.0, -2.0, -0.5), 0.40, 0.44, 0.15),
        ((-1.45, -2.25, -0.55), (1.45, -2.25, -0.55), 0.48, 0.48, 0.35),
        ((0.0, -2.2, -0.5), (0.0, bottom, -0.5), 0.62, 0.7, 0.3),
        ((-1.5, -2.3, -0.55), (-1.7, bottom, -0.55), 0.5, 0.5, 0.3),
        ((1.5, -2.3, -0.55), (1.7, bottom, -0.55), 0.5, 0.5, 0.3),
        ((-0.8, -2.3, -0.5), (-0.8, bottom, -0.5), 0.6, 0.7, 0.3),
        ((0.8, -2.3, -0.5), (0.8, bottom, -0.5), 0.6, 0.7, 0.3),
        ((0.0, 0.12, 0.80), (0.0, -0.20, 0.98), 0.09, 0.14, 0.12),
        ((-0.12, -0.52, 0.72), (0.12, -0.52, 0.72), 0.11, 0.11, 0.12),
        ((-0.80, 0.05, -0.05), (-0.82, -0.22, -0.02), 0.13, 0.09, 0.06),
        ((0.80, 0.05, -0.05), (0.82, -0.22, -0.02), 0.13, 0.09, 0.06),
    )
    for a, b, ra, rb, blend in capsules:
        field.add(values, np.array(a), np.array(b), ra, rb, blend)
    vertices, normals, faces = field.surface(values)
    color = np.tile(skin, (len(vertices), 1))
    lips = _ball(vertices, tuple(LIPS), (0.27, 0.09, 0.4))
    color = color * (1.0 - lips * np.array([0.15, 0.55, 0.5]))
    scalp = _ramp(18.0 * (vertices[:, 1:2] - 0.55 - 0.75 * (vertices[:, 2:3] - 0.45)))
    # The collar: a slanted line about the neck.
    cloth = _ramp(-40.0 * (vertices[:, 1:2] + 1.62 + 0.25 * vertices[:, 2:3]))
    paints = [(scalp, hair), (cloth, shirt)]
    for side in (-0.32, 0.32):
        paints.append((_ball(vertices, (side, 0.33, 0.75), (0.19, 0.055, 0.4)), hair))
        paints.append((_ball(vertices, (side, 0.12, 0.75), (0.15, 0.085, 0.4)), np.array([0.8, 0.8, 0.8])))
        paints.append((_ball(vertices, (side, 0.12, 0.75), (0.07, 0.08, 0.4)), np.array([0.04, 0.03, 0.02])))
    for mask, paint in paints:
        color = color * (1.0 - mask) + mask * paint
    return Mesh(vertices, normals, faces, color.astype(np.float32))
