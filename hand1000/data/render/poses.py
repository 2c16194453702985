"""Poses of one hand: a table for the one-handed gestures of HaGRID, and arbitrary ones for pretraining."""

from dataclasses import dataclass, field, replace

import numpy as np

from hand1000.data.render.skeleton import HandPose, HandShape, Skeleton, Thumb, forward, reach, rotation

_STRAIGHT = (4.0, 5.0, 3.0)
_CURLED = (82.0, 100.0, 62.0)
_SPREAD = (11.0, 2.0, -8.0, -19.0)
_RELAXED = (4.0, 1.0, -3.0, -8.0)
TOGETHER = (-1.5, 0.5, 1.5, 3.5)


@dataclass(frozen=True)
class Gesture:
    """The pose of one gesture, as a right hand makes it; angles are in degrees.

    Attributes:
        up: Which of index to pinky are straight.
        contact: What the thumb touches: the middle phalanx of a finger (0 index to 3 pinky), "palm", "index tip" or
            "under index", a point in the image below that tip.
        turn: Spread of the jitter on roll, yaw and pitch.
        bent: Fingers with their own flexion.
        wrist: Bend to the palm, and to the thumb's side.
        looseness: Factor of the jitter on the flexion.
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
    wrist: tuple[float, float] = (0.0, 0.0)
    looseness: float = 1.0


ACROSS = Thumb(radial=12.0, palmar=40.0, mcp=30.0, ip=25.0, opposition=20.0)
OUT = Thumb(radial=50.0, palmar=12.0, mcp=0.0, ip=-4.0, opposition=25.0)
BESIDE = Thumb(radial=24.0, palmar=12.0, mcp=6.0, ip=2.0, opposition=30.0)
BACK = 180.0


def bend_all(flexion: tuple[float, float, float]) -> tuple[tuple[int, tuple[float, float, float]], ...]:
    """Return `Gesture.bent` with the same flexion of all four fingers."""
    return tuple((finger, flexion) for finger in range(4))


_OPEN = (True, True, True, True)
_NONE = (False, False, False, False)
_V1: dict[str, Gesture] = {
    "call": Gesture((False, False, False, True), OUT, None, (2.0, 0.0, -3.0, -16.0), roll=-5.0),
    "dislike": Gesture(_NONE, replace(OUT, radial=66.0, mcp=-8.0), roll=-98.0, yaw=-8.0, turn=(9.0, 12.0, 8.0)),
    "fist": Gesture(_NONE, ACROSS, 1),
    "four": Gesture(_OPEN, ACROSS, "palm", (8.0, 2.0, -5.0, -13.0)),
    "like": Gesture(_NONE, replace(OUT, radial=62.0, mcp=-8.0), roll=62.0, yaw=5.0, turn=(9.0, 12.0, 8.0)),
    "mute": Gesture((True, False, False, False), ACROSS, 1, roll=8.0, yaw=35.0, turn=(7.0, 10.0, 6.0)),
    "ok": Gesture(
        (False, True, True, True),
        Thumb(35.0, 35.0, 18.0, 28.0, 35.0),
        "index tip",
        (4.0, 1.0, -7.0, -17.0),
        bent=((0, (58.0, 62.0, 30.0)),),
        yaw=12.0,
    ),
    "one": Gesture((True, False, False, False), ACROSS, 1),
    "palm": Gesture(_OPEN, replace(OUT, radial=46.0), None, _SPREAD),
    "peace": Gesture((True, True, False, False), ACROSS, 2, (11.0, -9.0, -6.0, -8.0)),
    "peace_inverted": Gesture((True, True, False, False), ACROSS, 2, (11.0, -9.0, -6.0, -8.0), yaw=BACK),
    "rock": Gesture((True, False, False, True), ACROSS, 1, (6.0, 0.0, -4.0, -12.0)),
    "stop": Gesture(_OPEN, BESIDE, None, TOGETHER),
    "stop_inverted": Gesture(_OPEN, BESIDE, None, TOGETHER, yaw=BACK),
    "three": Gesture((True, True, True, False), ACROSS, 3, (10.0, 1.0, -9.0, -8.0)),
    "three2": Gesture((True, True, False, False), OUT, None, (10.0, -6.0, -6.0, -8.0)),
    "two_up": Gesture((True, True, False, False), ACROSS, 2, (-2.0, 1.5, -4.0, -8.0)),
    "two_up_inverted": Gesture((True, True, False, False), ACROSS, 2, (-2.0, 1.5, -4.0, -8.0), yaw=BACK),
}
# How each gesture looks: images/gestures.png of github.com/hukenovs/hagrid.
_V2: dict[str, Gesture] = {
    "grabbing": Gesture(
        _NONE,
        Thumb(38.0, 28.0, 26.0, 38.0, 30.0),
        None,
        (13.0, 3.0, -9.0, -20.0),
        bent=bend_all((16.0, 60.0, 38.0)),
    ),
    # A hand around a thick stick, seen from the thumb's side.
    "grip": Gesture(
        _NONE,
        Thumb(8.0, 62.0, 20.0, 26.0, -50.0),
        "index tip",
        TOGETHER,
        yaw=-61.0,
        pitch=8.0,
        turn=(9.0, 8.0, 6.0),
        bent=((0, (62.0, 52.0, 30.0)), (1, (65.0, 58.0, 34.0)), (2, (65.0, 56.0, 32.0)), (3, (58.0, 50.0, 28.0))),
        looseness=0.5,
    ),
    "little_finger": Gesture((False, False, False, True), ACROSS, 1, (2.0, 0.0, -4.0, -13.0)),
    "middle_finger": Gesture((False, True, False, False), ACROSS, 2, yaw=BACK),
    # At the viewer; the fist behind the finger shows the others one above the other.
    "point": Gesture(
        (True, False, False, False), ACROSS, 1, yaw=66.0, pitch=71.0, turn=(9.0, 9.0, 8.0), wrist=(0.0, -12.0)
    ),
    "three3": Gesture((True, True, False, True), ACROSS, 2, (9.0, -1.0, -6.0, -15.0)),
    "three_gun": Gesture(
        (True, True, False, False),
        replace(OUT, radial=62.0, mcp=-8.0),
        None,
        (-2.0, 1.5, -4.0, -8.0),
        roll=-80.0,
        yaw=BACK - 8.0,
        turn=(11.0, 12.0, 8.0),
    ),
    "thumb_index": Gesture((True, False, False, False), replace(OUT, radial=66.0, mcp=-6.0)),
}
GESTURES: dict[str, Gesture] = _V1 | _V2
"""The one-handed gestures."""


@dataclass(frozen=True)
class PosedHand:
    """A right hand in a pose: its key points in its own frame, and its place in the image's frame.

    Attributes:
        skeleton: The key points.
        rotation: (3, 3), into the image's frame.
        mirrored: Whether the image shows it mirrored, as a left hand.
        wrist: Place of the wrist in the image's frame, (3,), in palm lengths, relative to any other hand.
    """

    skeleton: Skeleton
    rotation: np.ndarray
    mirrored: bool
    wrist: np.ndarray = field(default_factory=lambda: np.zeros(3))

    def to_image(self, directions: np.ndarray) -> np.ndarray:
        """Rotate directions (n, 3) of the hand's frame into the image's, and mirror them for a left hand."""
        return directions @ self.rotation.T * [-1.0 if self.mirrored else 1.0, 1.0, 1.0]

    def place(self, points: np.ndarray, move: np.ndarray) -> np.ndarray:
        """Bring points (n, 3) of the hand's frame into the image's, and move them by `move` (3,)."""
        return self.to_image(points) + (self.wrist + move)


def _touch(shape: HandShape, pose: HandPose, contact: int | str | None, turn: np.ndarray) -> HandPose:
    if contact is None:
        return pose
    skeleton = forward(shape, pose)
    if isinstance(contact, int):
        # On the back of the curled finger's middle phalanx.
        middle = 0.5 * (skeleton.joints[6 + 4 * contact] + skeleton.joints[7 + 4 * contact])
        target = middle + skeleton.backs[contact + 1, 1] * (shape.radii[contact + 1, 2] + shape.radii[0, 3])
    elif contact == "palm":
        target = np.array([-0.08 * shape.palm_width, 0.72, 0.20])
    elif contact == "under index":
        # In the image straight below the index finger's tip.
        target = skeleton.joints[8] + np.array([0.08, -0.85, 0.0]) @ turn
    else:
        # Pads meet: half of both tips' thickness beyond the index finger's own.
        target = skeleton.joints[8] - skeleton.backs[1, 2] * (shape.radii[1, 3] + shape.radii[0, 3]) * 0.85
    return reach(shape, pose, target)


def _jitter_thumb(thumb: Thumb, rng: np.random.Generator, spread: float) -> Thumb:
    jittered = thumb.with_angles(thumb.angles + rng.normal(0.0, spread, 4))
    return replace(jittered, palmar=max(0.0, jittered.palmar))


def sample_gesture(row: Gesture, shape: HandShape, rng: np.random.Generator) -> PosedHand:
    """Return a hand in the pose of `row`, with natural variation sampled from `rng`."""
    flexion = np.array([_STRAIGHT if up else _CURLED for up in row.up])
    for finger, angles in row.bent:
        flexion[finger] = angles
    # The fingers of a hand bend in unison for the most part, each a little on its own.
    straight = np.array(row.up)
    unison = np.where(straight, rng.normal(0.0, 3.0), rng.normal(0.0, 4.0))
    flexion = flexion + row.looseness * (unison + rng.normal(0.0, 2.5, 4))[:, None] * [1.0, 1.2, 0.7]
    spreading = 1.0 if row.abduction == TOGETHER else rng.uniform(0.85, 1.2)
    abduction = np.array(row.abduction) * spreading + rng.normal(0.0, 0.6, 4)
    thumb = _jitter_thumb(row.thumb, rng, 4.0)
    pose = HandPose(flexion, abduction, thumb, rng.normal(0.0, [7.0, 6.0]) + row.wrist)
    pose = _touch(shape, pose, row.contact, rotation(row.roll, row.yaw, row.pitch))
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
    abduction = np.array(TOGETHER) + rng.uniform(0.0, 1.15) * (np.array(_SPREAD) - TOGETHER) + rng.normal(0.0, 2.0, 4)
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
        pose = replace(pose, thumb=_jitter_thumb(ACROSS, rng, 6.0))
        contact = int(rng.choice(curled)) if len(curled) else "palm"
    pose = _touch(shape, pose, contact, np.eye(3))
    roll, pitch = rng.normal(0.0, 22.0), rng.normal(0.0, 12.0)
    if rng.random() < 0.25:
        roll += rng.choice([-1.0, 1.0]) * rng.uniform(40.0, 110.0)
    yaw = rng.normal(0.0, 22.0) + (BACK if rng.random() < 0.3 else 0.0)
    return PosedHand(forward(shape, pose), rotation(roll, yaw, pitch), bool(rng.integers(2)))
