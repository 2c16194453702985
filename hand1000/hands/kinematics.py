"""Joints of many hands at once: bones that differ between people, joint angles, and forward kinematics.

Frame, unit and angles are those of `hand1000.data.render.skeleton`, which poses one hand with all that a renderer
needs. The bones here vary more: the renderer's people differ in four proportions, real people in every bone.
"""

from dataclasses import dataclass

import numpy as np

_KNUCKLES = np.array([[0.285, 0.965, 0.0], [0.075, 1.0, -0.02], [-0.135, 0.945, -0.005], [-0.325, 0.845, 0.035]])
_PHALANGES = np.array([[0.44, 0.26, 0.19], [0.49, 0.30, 0.20], [0.45, 0.28, 0.20], [0.35, 0.20, 0.175]])
_THUMB_BASE = np.array([0.20, 0.20, 0.07])
_THUMB_BONES = np.array([0.44, 0.35, 0.25])

THUMB_LIMITS = np.array([[-5.0, 82.0], [-10.0, 65.0], [-25.0, 70.0], [-35.0, 85.0]])
"""Lowest and highest angle of the thumb's joints in degrees: radial, palmar, mcp and ip."""

THICKNESS = 0.16
"""Distance between the bones of two fingers that touch, in palm lengths."""

_ITERATIONS = 10
_PULL = 5e-4


@dataclass(frozen=True)
class HandBones:
    """The bones of N hands, in palm lengths.

    Attributes:
        knuckles: Knuckles of index to pinky, (N, 4, 3).
        phalanges: Lengths of their phalanges, from the knuckle out, (N, 4, 3).
        thumb_base: (N, 3).
        thumb: Lengths of the thumb's bones, (N, 3).
    """

    knuckles: np.ndarray
    phalanges: np.ndarray
    thumb_base: np.ndarray
    thumb: np.ndarray

    def __len__(self) -> int:
        return len(self.thumb)


@dataclass(frozen=True)
class HandAngles:
    """The joint angles of N hands in degrees; see `hand1000.data.render.skeleton.HandPose` and `Thumb`.

    Attributes:
        flexion: Index to pinky, from the knuckle out, (N, 4, 3).
        abduction: Index to pinky, positive towards the thumb's side, (N, 4).
        thumb: Radial, palmar, mcp, ip and opposition, (N, 5).
    """

    flexion: np.ndarray
    abduction: np.ndarray
    thumb: np.ndarray


def sample_bones(count: int, rng: np.random.Generator) -> HandBones:
    """Sample the bones of `count` people.

    Lengths of bones vary by about 5 to 8 % between adults of one hand length, and where MediaPipe places a joint varies
    by a few percent of the palm.
    """
    length = rng.normal(1.0, 0.06, (count, 1, 1)) * rng.normal(1.0, 0.04, (count, 4, 1))
    width = rng.normal(1.0, 0.08, (count, 1))
    knuckles = np.tile(_KNUCKLES, (count, 1, 1))
    knuckles[..., 0] *= width
    base = np.tile(_THUMB_BASE, (count, 1))
    base[:, 0] *= width[:, 0]
    return HandBones(
        knuckles=knuckles + rng.normal(0.0, 0.025, knuckles.shape),
        phalanges=_PHALANGES * length * rng.normal(1.0, 0.06, (count, 4, 3)),
        thumb_base=base + rng.normal(0.0, 0.035, base.shape),
        thumb=_THUMB_BONES * rng.normal(1.0, 0.07, (count, 1)) * rng.normal(1.0, 0.06, (count, 3)),
    )


def mean_bones(count: int) -> HandBones:
    """Return `count` times the average hand, the renderer's."""
    tiles = (np.tile(values, (count, *(1,) * values.ndim)) for values in (_KNUCKLES, _PHALANGES))
    knuckles, phalanges = tiles
    return HandBones(knuckles, phalanges, np.tile(_THUMB_BASE, (count, 1)), np.tile(_THUMB_BONES, (count, 1)))


def pose_hands(bones: HandBones, angles: HandAngles) -> np.ndarray:
    """Return the joints of right hands whose palm faces the viewer, (N, 21, 3), in MediaPipe's order; y is upwards."""
    bend = np.cumsum(angles.flexion, axis=2)
    points = bones.knuckles[:, :, None] + np.cumsum(_directions(angles, bend) * bones.phalanges[..., None], axis=2)
    fingers = np.concatenate([bones.knuckles[:, :, None], points], axis=2).reshape(len(bones), 16, 3)
    wrist = np.zeros((len(bones), 1, 3))
    return np.concatenate([wrist, _pose_thumbs(bones, angles.thumb), fingers], axis=1)


def touch_finger(bones: HandBones, angles: HandAngles, fingers: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Return points on the back of a bent finger, for the thumb's tip to lie on, (N, 3).

    `fingers` (N,) are 0 for the index to 3 for the pinky, `reach` (N,) is the place along the middle phalanx, 0 to 1.
    """
    rows = np.arange(len(bones))
    joints = pose_hands(bones, angles)
    near, far = joints[rows, 6 + 4 * fingers], joints[rows, 7 + 4 * fingers]
    bend = np.radians(angles.flexion[rows, fingers, :2].sum(axis=1))
    spread = np.radians(_spreads(angles)[rows, fingers])
    sine = np.sin(bend)
    back = np.stack([sine * np.sin(spread), sine * np.cos(spread), -np.cos(bend)], axis=1)
    return near + reach[:, None] * (far - near) + THICKNESS * back


def reach_with_thumb(bones: HandBones, thumb: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return thumb angles (N, 5) near `thumb` with which the thumbs' tips are as near to `target` (N, 3) as possible.

    The joints' limits hold; a damped Gauss-Newton iteration solves for the four joints.
    """
    angles, prior = thumb.copy(), thumb[:, :4].copy()
    damping = _PULL**2 * np.eye(4)
    for _ in range(_ITERATIONS):
        tip = _pose_thumbs(bones, angles)[:, -1]
        columns = []
        for joint in range(4):
            moved = angles.copy()
            moved[:, joint] += 1.0
            columns.append(_pose_thumbs(bones, moved)[:, -1] - tip)
        slope = np.stack(columns, axis=2)
        transposed = slope.transpose(0, 2, 1)
        right_side = transposed @ (target - tip)[..., None] + _PULL**2 * (prior - angles[:, :4])[..., None]
        change = np.linalg.solve(transposed @ slope + damping, right_side)[..., 0]
        angles[:, :4] = np.clip(angles[:, :4] + np.clip(change, -15.0, 15.0), *THUMB_LIMITS.T)
    return angles


def _spreads(angles: HandAngles) -> np.ndarray:
    """Abduction that is left in bent fingers, (N, 4): the knuckles' ligaments tighten as they bend."""
    return angles.abduction * np.maximum(0.0, np.cos(np.radians(angles.flexion[..., 0])))


def _directions(angles: HandAngles, bend: np.ndarray) -> np.ndarray:
    """Unit vectors along the phalanges, (N, 4, 3, 3)."""
    spread, bend = np.radians(_spreads(angles))[..., None], np.radians(bend)
    return np.stack([np.sin(spread) * np.cos(bend), np.cos(spread) * np.cos(bend), np.sin(bend)], axis=3)


def _pose_thumbs(bones: HandBones, thumb: np.ndarray) -> np.ndarray:
    """Joints of the thumbs, (N, 4, 3)."""
    radial, palmar, mcp, ip, opposition = np.radians(thumb).T
    along = np.stack([np.sin(radial) * np.cos(palmar), np.cos(radial) * np.cos(palmar), np.sin(palmar)], axis=1)
    bend = np.stack([-np.cos(opposition), np.zeros(len(thumb)), np.sin(opposition)], axis=1)
    bend -= along * (bend * along).sum(axis=1, keepdims=True)
    bend /= np.linalg.norm(bend, axis=1, keepdims=True)
    points = [bones.thumb_base]
    for length, angle in zip(bones.thumb.T, (np.zeros(len(thumb)), mcp, ip), strict=True):
        cosine, sine = np.cos(angle)[:, None], np.sin(angle)[:, None]
        along, bend = cosine * along + sine * bend, cosine * bend - sine * along
        points.append(points[-1] + along * length[:, None])
    return np.stack(points, axis=1)
