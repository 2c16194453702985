"""The skin of a posed hand, a sleeve and a face, as triangle meshes in the frame of a right hand.

The hand is a signed distance field of tapered capsules, blended by a smooth minimum where flesh joins and by a
nearly sharp one where skin only touches skin; otherwise curled fingers would melt into the palm.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from hand1000.data.render.skeleton import HandShape, Skeleton

FOREARM_LENGTH = 1.0
"""Length of the skin below the wrist, in palm lengths; the sleeve covers its end."""


@dataclass(frozen=True)
class Mesh:
    """Float32 `vertices`, unit `normals` and `color` factors, (n, 3), and uint32 triangles `faces`, (m, 3)."""

    vertices: np.ndarray
    normals: np.ndarray
    faces: np.ndarray
    color: np.ndarray


def _smooth_minimum(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    gap = np.maximum(width - np.abs(a - b), 0.0)
    return np.minimum(a, b) - gap * gap * (0.25 / width)


class Field:
    """Signed distances on a regular grid; only the part near a capsule is computed when it is added."""

    def __init__(self, low: np.ndarray, high: np.ndarray, voxel: float) -> None:
        self.low, self.voxel = low, voxel
        self.shape = tuple(int(n) for n in np.ceil((high - low) / voxel).astype(int) + 1)

    def empty(self) -> np.ndarray:
        """Return a grid of the largest distance."""
        return np.full(self.shape, 0.25, np.float32)

    def add(self, values: np.ndarray, a: np.ndarray, b: np.ndarray, ra: float, rb: float, blend: float) -> None:
        """Blend the tapered capsule from `a` to `b` into `values`, in place."""
        reach = max(ra, rb) + blend + 2.5 * self.voxel
        first = np.floor((np.minimum(a, b) - reach - self.low) / self.voxel).astype(int)
        last = np.ceil((np.maximum(a, b) + reach - self.low) / self.voxel).astype(int) + 1
        box = tuple(slice(max(f, 0), max(e, 0)) for f, e in zip(first, last, strict=True))
        axes = [
            (np.arange(n, dtype=np.float32)[cut] * np.float32(self.voxel) + np.float32(low - start))
            for n, cut, low, start in zip(self.shape, box, self.low, a, strict=True)
        ]
        x, y, z = axes[0][:, None, None], axes[1][None, :, None], axes[2][None, None, :]
        along = (b - a).astype(np.float32)
        length2 = max(float(along @ along), 1e-9)
        t = np.clip((x * along[0] + y * along[1] + z * along[2]) / np.float32(length2), 0.0, 1.0)
        square = (x - t * along[0]) ** 2 + (y - t * along[1]) ** 2 + (z - t * along[2]) ** 2
        distance = np.sqrt(square) - (np.float32(ra) + t * np.float32(rb - ra))
        values[box] = _smooth_minimum(values[box], distance, blend)

    def surface(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return vertices, unit normals (n, 3) and uint32 triangles (m, 3) of the surface where `values` is 0."""
        from skimage.measure import marching_cubes

        vertices, faces, inward, _ = marching_cubes(values, 0.0, gradient_direction="ascent")
        vertices = vertices * np.float32(self.voxel) + self.low.astype(np.float32)
        return vertices, -inward, faces[:, ::-1].astype(np.uint32)


def _radii(shape: HandShape, skeleton: Skeleton) -> np.ndarray:
    """Return the radii at the four key points of each digit, (D, 4); extra digits are as thick as the pinky."""
    return shape.radii[np.minimum(np.arange(len(skeleton.backs)), 4)]


def _palm_capsules(shape: HandShape, skeleton: Skeleton) -> list[tuple[np.ndarray, np.ndarray, float, float]]:
    joints, wide = skeleton.joints, shape.palm_width
    heel = np.array([[0.12, 0.06, 0.0], [0.04, 0.05, -0.01], [-0.05, 0.05, -0.01], [-0.13, 0.07, 0.0]])
    heel[:, 0] *= wide
    knuckles = shape.knuckles - [0.0, 0.02, 0.0]
    capsules = [(heel[i], knuckles[i], 0.125, r) for i, r in enumerate((0.118, 0.118, 0.112, 0.102))]
    cmc, mcp, index = joints[1], joints[2], shape.knuckles[0]
    # The ball of the thumb, the web between thumb and index, and the heel's outer pad.
    capsules.append((cmc * 0.8 + [0.0, 0.02, 0.02], cmc + 0.7 * (mcp - cmc), 0.155, 0.15))
    capsules.append((cmc + 0.45 * (mcp - cmc), 0.55 * index + 0.45 * cmc, 0.10, 0.09))
    capsules.append((np.array([-0.16 * wide, 0.16, 0.045]), np.array([-0.27 * wide, 0.55, 0.05]), 0.125, 0.11))
    return capsules


def _field_of_hand(shape: HandShape, skeleton: Skeleton, voxel: float) -> tuple[Field, np.ndarray]:
    joints, radii = skeleton.joints, _radii(shape, skeleton)
    elbow = skeleton.forearm * FOREARM_LENGTH
    around = np.concatenate([joints, elbow[None], [[-0.2, 0.0, 0.0]]])
    field = Field(around.min(0) - 0.26, around.max(0) + 0.26, voxel)

    palm = field.empty()
    for a, b, ra, rb in _palm_capsules(shape, skeleton):
        field.add(palm, a, b, ra, rb, 0.09)
    for side in (-0.085, 0.085):
        start = np.array([side * shape.palm_width, 0.08, -0.005])
        field.add(palm, start, elbow + [1.6 * side, 0.0, 0.0], 0.128, 0.19, 0.07)

    body, digits = palm.copy(), field.empty()
    for digit, sizes in enumerate(radii):
        points = joints[1 + 4 * digit : 5 + 4 * digit]
        root = palm.copy()
        field.add(root, points[0], points[1], sizes[0], sizes[1], 0.08)
        # Blending a finger's outer bones with its own root only keeps a curled tip from melting into the palm.
        outer = field.empty()
        start = points[0] + 0.5 * (points[1] - points[0])
        field.add(outer, start, points[1], 0.5 * (sizes[0] + sizes[1]), sizes[1], 0.03)
        field.add(outer, points[1], points[2], sizes[1], sizes[2], 0.03)
        tip = points[3] - (points[3] - points[2]) * 0.12
        field.add(outer, points[2], tip, sizes[2], sizes[3], 0.03)
        body = _smooth_minimum(body, root, 0.012)
        digits = _smooth_minimum(digits, outer, 0.012)
    return field, _smooth_minimum(body, digits, 0.012)


# The three large lines of a palm (heart, head, life), as points of a right one seen from the front.
_PALM_LINES = (
    ((-0.36, 0.62), (-0.16, 0.67), (0.02, 0.74), (0.14, 0.86)),
    ((0.34, 0.70), (0.14, 0.62), (-0.08, 0.52), (-0.24, 0.40)),
    ((0.34, 0.70), (0.17, 0.60), (0.07, 0.44), (0.02, 0.26), (0.03, 0.10)),
)


def _palm_lines(shape: HandShape, vertices: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Return how deep each vertex is in a line of the palm, (n,), 0 to 1."""
    palm = np.flatnonzero((normals[:, 2] > 0.2) & (vertices[:, 2] < 0.26) & (np.abs(vertices[:, 1] - 0.5) < 0.45))
    flat = vertices[palm, :2]
    nearest = np.full(len(palm), 1.0)
    for line in _PALM_LINES:
        points = np.array(line) * [shape.palm_width, 1.0]
        for a, b in pairwise(points):
            t = np.clip((flat - a) @ (b - a) / ((b - a) @ (b - a)), 0.0, 1.0)
            nearest = np.minimum(nearest, np.linalg.norm(flat - a - t[:, None] * (b - a), axis=1))
    depth = np.zeros(len(vertices), np.float32)
    depth[palm] = np.exp(-((nearest / 0.026) ** 2)) * np.clip(normals[palm, 2] * 1.6 - 0.3, 0.0, 1.0)
    return depth


def _inner_side(shape: HandShape, skeleton: Skeleton, vertices: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Return how much each vertex is on the palm's side of the hand and of curled fingers, (n,), 0 to 1."""
    side = normals[:, 2].copy()
    for digit, sizes in enumerate(_radii(shape, skeleton)):
        points = skeleton.joints[1 + 4 * digit : 5 + 4 * digit].astype(np.float32)
        for bone in (0, 1, 2):
            if digit == 0 and bone == 0:
                continue
            a, b = points[bone], points[bone + 1]
            if bone == 0:
                a = 0.5 * (a + b)
            reach = 1.2 * sizes[bone]
            near = np.all((vertices > np.minimum(a, b) - reach) & (vertices < np.maximum(a, b) + reach), axis=1)
            near = np.flatnonzero(near)
            offset = vertices[near] - a
            t = np.clip(offset @ (b - a) / ((b - a) @ (b - a)), 0.0, 1.0)[:, None]
            near = near[np.linalg.norm(offset - t * (b - a), axis=1) < reach]
            side[near] = -(normals[near] @ skeleton.backs[digit, bone].astype(np.float32))
    return np.clip(side * 0.8 + 0.35, 0.0, 1.0) ** 1.5


def _skin_tint(
    shape: HandShape, skeleton: Skeleton, vertices: np.ndarray, normals: np.ndarray, pale_palm: float
) -> np.ndarray:
    """Return factors of the skin's color: a paler palm, redder tips and knuckles, pale nails, dark creases."""
    parts = (skeleton.joints, _radii(shape, skeleton), skeleton.backs)
    joints, radii, backs = (part.astype(np.float32) for part in parts)
    red, pale = np.zeros(len(vertices), np.float32), np.zeros(len(vertices), np.float32)
    dark = 1.3 * _palm_lines(shape, vertices, normals)
    for digit in range(len(backs)):
        points = joints[1 + 4 * digit : 5 + 4 * digit]
        # Only the vertices near a digit can be tinted by it.
        near = np.flatnonzero(np.all((vertices > points.min(0) - 0.25) & (vertices < points.max(0) + 0.25), axis=1))
        place, normal = vertices[near], normals[near]
        for joint in (1, 2, 3):
            offset = place - points[joint]
            square = np.einsum("ij,ij->i", offset, offset)
            red[near] += np.exp(-square / (1.4 * radii[digit, joint]) ** 2)
            if joint < 3:
                bone = points[joint] - points[joint - 1]
                crease = np.exp(-((offset @ (bone / np.linalg.norm(bone)) / 0.02) ** 2))
                crease *= np.clip(-(normal @ backs[digit, joint]), 0.0, 1.0) * (square < (2.0 * radii[digit, 1]) ** 2)
                dark[near] += crease
        bone = points[3] - points[2]
        length = np.linalg.norm(bone)
        bone = bone / length
        offset = place - (points[2] + 0.72 * (points[3] - points[2]))
        side = np.cross(backs[digit, 2], bone)
        size = radii[digit, 3]
        oval = (offset @ bone / (0.40 * length)) ** 4 + (offset @ side / (0.72 * size)) ** 4
        nail = np.clip((normal @ backs[digit, 2]) * 3.0 - 0.6, 0.0, 1.0) / (1.0 + oval**3)
        pale[near] += nail * (np.abs(offset @ backs[digit, 2]) < 2.5 * size)
    inner = pale_palm * _inner_side(shape, skeleton, vertices, normals)
    red, pale = np.minimum(red, 1.3), np.minimum(pale, 1.0)
    tint = [
        (1.0 + inner * paler) * (1.0 - red * redder) * (1.0 + pale * nails) * (1.0 - 0.16 * dark)
        for paler, redder, nails in ((1.0, 0.0, 0.16), (0.9, 0.07, 0.12), (0.85, 0.06, 0.16))
    ]
    return np.stack(tint, axis=1).astype(np.float32)


def hand_mesh(shape: HandShape, skeleton: Skeleton, voxel: float, pale_palm: float = 0.1) -> Mesh:
    """Return the skin of a posed hand with its forearm.

    `voxel` is the grid's step in palm lengths, 0.015 to 0.05; `pale_palm` is how much paler the palm's side is.
    """
    field, values = _field_of_hand(shape, skeleton, voxel)
    vertices, normals, faces = field.surface(values)
    tint = _skin_tint(shape, skeleton, vertices, normals, pale_palm)
    return Mesh(vertices.astype(np.float32), normals.astype(np.float32), faces, tint)


def sleeve_mesh(skeleton: Skeleton, start: float, width: float, folds: float) -> Mesh:
    """Return a cloth tube around the forearm with radius `width`, `start` below the wrist (palm lengths).

    `folds` is the phase of the wrinkles in radians.
    """
    along = skeleton.forearm
    side = np.cross(along, [0.0, 0.0, 1.0])
    side /= np.linalg.norm(side)
    depth = np.cross(side, along)
    # Rings from inside the cuff, over its rolled rim, to far outside the image.
    places = np.concatenate([[0.10, 0.02, 0.0, 0.01, 0.05, 0.10, 0.13, 0.16], np.linspace(0.22, 5.0, 44)])
    scales = np.concatenate([[0.86, 0.90, 0.96, 1.0, 1.03, 1.02, 0.98, 0.99], 1.0 + 0.12 * np.linspace(0.0, 5.0, 44)])
    turns = np.linspace(0.0, 2.0 * np.pi, 33)[:-1]
    wrinkle = 0.02 * np.sin(places * 16.0 + folds)[:, None] * (1.0 + np.sin(turns * 2.0 + folds + places[:, None]))
    wrinkle[:8] = 0.0
    radius = width * (scales[:, None] + wrinkle)
    ring = np.cos(turns)[None, :, None] * side + 0.82 * np.sin(turns)[None, :, None] * depth
    vertices = (places[:, None, None] + start) * along + radius[..., None] * ring
    rows, columns = radius.shape
    index = np.arange(rows * columns).reshape(rows, columns)
    right = np.roll(index, -1, axis=1)
    a, b, c, d = index[:-1], index[1:], right[1:], right[:-1]
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    slope_ring = np.roll(vertices, -1, axis=1) - np.roll(vertices, 1, axis=1)
    slope_along = np.gradient(vertices, axis=0)
    normals = np.cross(slope_along, slope_ring)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    outward = np.sign(np.sum(normals[-1] * ring[0], axis=-1).mean())
    flat = vertices.reshape(-1, 3).astype(np.float32)
    faces = faces if outward > 0 else faces[:, ::-1]
    tint = np.ones_like(flat)
    return Mesh(flat, (outward * normals).reshape(-1, 3).astype(np.float32), faces.astype(np.uint32), tint)
