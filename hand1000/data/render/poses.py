"""Poses of the hand: a table for the gestures of HaGRID v1, and arbitrary ones for pretraining."""

from dataclasses import dataclass, replace

import numpy as np

from hand1000.core.errors import Hand1000Error
from hand1000.data.render.skeleton import HandPose, HandShape, Skeleton, Thumb, forward, reach, rotation
from hand1000.gestures import HAGRID_V1, NO_GESTURE

_STRAIGHT = (4.0, 5.0, 3.0)
_CURLED = (82.0, 100.0, 62.0)
_SPREAD = (11.0, 2.0, -8.0, -19.0)
_RELAXED = (4.0, 1.0, -3.0, -8.0)
_TOGETHER = (-1.5, 0.5, 1.5, 3.5)


@dataclass(frozen=True)
class _Gesture:
    """The pose of one gesture, as a right hand makes it; angles are in degrees.

    Attributes:
        up: Which of index to pinky are straight.
        contact: What the thumb touches: the middle phalanx of a finger (0 index to 3 pinky), "palm" or "index tip".
        turn: Spread of the jitter on roll, yaw and pitch.
        bent: Fingers with their own flexion.
    """

    up: tuple[bool, bool, bool, bool]
    thumb: Thumb
    contact: int | str | None = None
    abduction: tuple[float, float, float, float] = _RELAXED
    roll: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0
    turn: tuple[float, float, float] = (9.0, 14.0, 8.0)
    bent: tuple[tuple[int, tuple[float, float, float]], ...] = ()


_ACROSS = Thumb(radial=12.0, palmar=40.0, mcp=30.0, ip=25.0, opposition=20.0)
_OUT = Thumb(radial=50.0, palmar=12.0, mcp=0.0, ip=-4.0, opposition=25.0)
_BESIDE = Thumb(radial=24.0, palmar=12.0, mcp=6.0, ip=2.0, opposition=30.0)
_BACK = 180.0

_OPEN = (True, True, True, True)
_NONE = (False, False, False, False)
_TABLE: dict[str, _Gesture] = {
    "call": _Gesture((False, False, False, True), _OUT, None, (2.0, 0.0, -3.0, -16.0), roll=-5.0),
    "dislike": _Gesture(_NONE, replace(_OUT, radial=66.0, mcp=-8.0), roll=-98.0, yaw=-8.0, turn=(9.0, 12.0, 8.0)),
    "fist": _Gesture(_NONE, _ACROSS, 1),
    "four": _Gesture(_OPEN, _ACROSS, "palm", (8.0, 2.0, -5.0, -13.0)),
    "like": _Gesture(_NONE, replace(_OUT, radial=62.0, mcp=-8.0), roll=62.0, yaw=5.0, turn=(9.0, 12.0, 8.0)),
    "mute": _Gesture((True, False, False, False), _ACROSS, 1, roll=8.0, yaw=35.0, turn=(7.0, 10.0, 6.0)),
    "ok": _Gesture(
        (False, True, True, True),
        Thumb(35.0, 35.0, 18.0, 28.0, 35.0),
        "index tip",
        (4.0, 1.0, -7.0, -17.0),
        bent=((0, (58.0, 62.0, 30.0)),),
        yaw=12.0,
    ),
    "one": _Gesture((True, False, False, False), _ACROSS, 1),
    "palm": _Gesture(_OPEN, replace(_OUT, radial=46.0), None, _SPREAD),
    "peace": _Gesture((True, True, False, False), _ACROSS, 2, (11.0, -9.0, -6.0, -8.0)),
    "peace_inverted": _Gesture((True, True, False, False), _ACROSS, 2, (11.0, -9.0, -6.0, -8.0), yaw=_BACK),
    "rock": _Gesture((True, False, False, True), _ACROSS, 1, (6.0, 0.0, -4.0, -12.0)),
    "stop": _Gesture(_OPEN, _BESIDE, None, _TOGETHER),
    "stop_inverted": _Gesture(_OPEN, _BESIDE, None, _TOGETHER, yaw=_BACK),
    "three": _Gesture((True, True, True, False), _ACROSS, 3, (10.0, 1.0, -9.0, -8.0)),
    "three2": _Gesture((True, True, False, False), _OUT, None, (10.0, -6.0, -6.0, -8.0)),
    "two_up": _Gesture((True, True, False, False), _ACROSS, 2, (-2.0, 1.5, -4.0, -8.0)),
    "two_up_inverted": _Gesture((True, True, False, False), _ACROSS, 2, (-2.0, 1.5, -4.0, -8.0), yaw=_BACK),
}


@dataclass(frozen=True)
class PosedHand:
    """A right hand in a pose: its key points in its own frame, and the (3, 3) rotation into the image's frame.

    `mirrored` is whether the image shows it mirrored, as a left hand.
    """

    skeleton: Skeleton
    rotation: np.ndarray
    mirrored: bool

    def to_image(self, points: np.ndarray) -> np.ndarray:
        """Rotate points (n, 3) of the hand's frame into the image's, and mirror them for a left hand."""
        return points @ self.rotation.T * [-1.0 if self.mirrored else 1.0, 1.0, 1.0]


def _touch(shape: HandShape, pose: HandPose, contact: int | str | None) -> HandPose:
    if contact is None:
        return pose
    skeleton = forward(shape, pose)
    if isinstance(contact, int):
        # On the back of the curled finger's middle phalanx.
        middle = 0.5 * (skeleton.joints[6 + 4 * contact] + skeleton.joints[7 + 4 * contact])
        target = middle + skeleton.backs[contact + 1, 1] * (shape.radii[contact + 1, 2] + shape.radii[0, 3])
    elif contact == "palm":
        target = np.array([-0.08 * shape.palm_width, 0.72, 0.20])
    else:
        # Pads meet: half of both tips' thickness beyond the index finger's own.
        target = skeleton.joints[8] - skeleton.backs[1, 2] * (shape.radii[1, 3] + shape.radii[0, 3]) * 0.85
    return reach(shape, pose, target)


def _jitter_thumb(thumb: Thumb, rng: np.random.Generator, spread: float) -> Thumb:
    jittered = thumb.with_angles(thumb.angles + rng.normal(0.0, spread, 4))
    return replace(jittered, palmar=max(0.0, jittered.palmar))


def check_gesture(gesture: str) -> None:
    """Raise a `Hand1000Error` if the renderer has no pose of `gesture`."""
    if gesture not in _TABLE and gesture != NO_GESTURE:
        known = ", ".join((*HAGRID_V1, NO_GESTURE))
        raise Hand1000Error(f"gesture {gesture!r} cannot be rendered; choose one of: {known}")


def sample_gesture(gesture: str, shape: HandShape, rng: np.random.Generator) -> PosedHand:
    """Return a hand that makes `gesture`, one of HaGRID v1, with natural variation sampled from `rng`."""
    row = _TABLE[gesture]
    flexion = np.array([_STRAIGHT if up else _CURLED for up in row.up])
    for finger, angles in row.bent:
        flexion[finger] = angles
    # The fingers of a hand bend in unison for the most part, each a little on its own.
    straight = np.array(row.up)
    unison = np.where(straight, rng.normal(0.0, 3.0), rng.normal(0.0, 4.0))
    flexion = flexion + (unison + rng.normal(0.0, 2.5, 4))[:, None] * [1.0, 1.2, 0.7]
    spreading = 1.0 if row.abduction == _TOGETHER else rng.uniform(0.85, 1.2)
    abduction = np.array(row.abduction) * spreading + rng.normal(0.0, 0.6, 4)
    pose = HandPose(flexion, abduction, _jitter_thumb(row.thumb, rng, 4.0), rng.normal(0.0, [7.0, 6.0]))
    pose = _touch(shape, pose, row.contact)
    roll, yaw, pitch = np.array([row.roll, row.yaw, row.pitch]) + np.clip(rng.normal(size=3), -2, 2) * row.turn
    return PosedHand(forward(shape, pose), rotation(roll, yaw, pitch), bool(rng.integers(2)))


def sample_arbitrary_pose(shape: HandShape, rng: np.random.Generator) -> PosedHand:
    """Return a hand in an arbitrary natural pose, with independent fingers and no preferred gesture."""
    kinds = rng.choice(3, size=4, p=(0.42, 0.2, 0.38))
    curl = np.where(kinds == 0, rng.normal(0.03, 0.04, 4), rng.uniform(0.2, 0.8, 4))
    curl = np.clip(np.where(kinds == 2, rng.normal(0.97, 0.05, 4), curl), -0.02, 1.08)
    flexion = np.array(_STRAIGHT) + curl[:, None] * (np.array(_CURLED) - _STRAIGHT) + rng.normal(0.0, 2.5, (4, 3))
    # Half-bent fingers bend more at the knuckle or more at the outer joints.
    lean = rng.normal(0.0, 16.0, 4) * (kinds == 1)
    flexion += lean[:, None] * [1.0, -0.8, -0.5]
    abduction = np.array(_TOGETHER) + rng.uniform(0.0, 1.15) * (np.array(_SPREAD) - _TOGETHER) + rng.normal(0.0, 2.0, 4)
    thumb = Thumb(
        radial=rng.uniform(12.0, 62.0),
        palmar=rng.uniform(2.0, 40.0),
        mcp=rng.uniform(-8.0, 35.0),
        ip=rng.uniform(-10.0, 50.0),
        opposition=rng.uniform(15.0, 35.0),
    )
    pose = HandPose(flexion, abduction, thumb, rng.normal(0.0, [10.0, 8.0]))
    contact: int | str | None = None
    curled = np.flatnonzero(curl > 0.75)
    if rng.random() < 0.55:
        pose = replace(pose, thumb=_jitter_thumb(_ACROSS, rng, 6.0))
        contact = int(rng.choice(curled)) if len(curled) else "palm"
    pose = _touch(shape, pose, contact)
    roll, pitch = rng.normal(0.0, 22.0), rng.normal(0.0, 12.0)
    if rng.random() < 0.25:
        roll += rng.choice([-1.0, 1.0]) * rng.uniform(40.0, 110.0)
    yaw = rng.normal(0.0, 22.0) + (_BACK if rng.random() < 0.3 else 0.0)
    return PosedHand(forward(shape, pose), rotation(roll, yaw, pitch), bool(rng.integers(2)))


def sample_pose(gesture: str, shape: HandShape, rng: np.random.Generator) -> PosedHand:
    """Return a hand that makes `gesture`, or an arbitrary pose for `no_gesture`."""
    return sample_arbitrary_pose(shape, rng) if gesture == NO_GESTURE else sample_gesture(gesture, shape, rng)
