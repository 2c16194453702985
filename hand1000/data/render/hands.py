"""The hands of an image: one, or two that make a gesture together."""

from dataclasses import dataclass, replace

import numpy as np

from hand1000.core.errors import Hand1000Error
from hand1000.data.render.poses import (
    ACROSS,
    BACK,
    BESIDE,
    GESTURES,
    OUT,
    TOGETHER,
    Gesture,
    PosedHand,
    bend_all,
    sample_arbitrary_pose,
    sample_gesture,
)
from hand1000.data.render.skeleton import HandShape, Thumb, rotation
from hand1000.gestures import HAGRID_V2, NO_GESTURE

_THUMB_TIP, _INDEX_ROOT, _INDEX_TIP, _MIDDLE_ROOT, _MIDDLE_TIP = 4, 5, 8, 9, 12
_STEADY = (4.0, 5.0, 4.0)

Join = tuple[int, int, tuple[float, float, float]]
"""A landmark of the right hand, one of the left hand, and the way from the second to the first in palm lengths."""


@dataclass(frozen=True)
class Pair:
    """A gesture of two hands, as a person makes it who faces the camera.

    The right hand is on the left of the image. The hands are placed so that they fit all `joins` as well as they can.

    Attributes:
        right: Pose of the right hand.
        left: Pose of the left hand, mirrored: as a right hand makes it.
        joins: Where they meet.
        stretch: Smallest and largest factor of the ways of `joins`.
        turn: Spread of the jitter on roll, yaw and pitch of both hands together.
    """

    right: Gesture
    left: Gesture
    joins: tuple[Join, ...]
    stretch: tuple[float, float] = (1.0, 1.0)
    turn: tuple[float, float, float] = (5.0, 9.0, 6.0)


_L = Gesture((True, False, False, False), replace(OUT, radial=68.0, mcp=-6.0), turn=(6.0, 8.0, 6.0))
_HEART = Gesture(
    (False,) * 4,
    Thumb(34.0, 30.0, 0.0, 0.0, 40.0),
    "under index",
    TOGETHER,
    roll=-40.0,
    yaw=62.0,
    turn=_STEADY,
    bent=bend_all((46.0, 51.0, 32.0)),
    wrist=(-6.0, 4.0),
)
_HEART2 = replace(
    _HEART,
    up=(False, True, True, True),
    abduction=(16.0, 3.0, -9.0, -20.0),
    roll=-32.0,
    yaw=48.0,
    bent=((0, (46.0, 50.0, 30.0)),),
    wrist=(-8.0, -20.0),
)
_HOLY = Gesture((True,) * 4, BESIDE, None, TOGETHER, yaw=62.0, turn=_STEADY, wrist=(-48.0, 0.0))
_FLAT = Gesture((True,) * 4, BESIDE, None, TOGETHER, roll=-88.0, yaw=76.0, turn=_STEADY)
_UPRIGHT = Gesture((True,) * 4, BESIDE, None, TOGETHER, roll=12.0, yaw=58.0, turn=_STEADY, wrist=(-48.0, 0.0))
_FIST = Gesture((False,) * 4, ACROSS, 1, roll=-40.0, yaw=BACK, turn=(6.0, 10.0, 6.0))

PAIRS: dict[str, Pair] = {
    "hand_heart": Pair(
        _HEART, _HEART, ((_INDEX_TIP, _INDEX_TIP, (-0.16, 0, 0)), (_THUMB_TIP, _THUMB_TIP, (-0.18, 0, 0)))
    ),
    "hand_heart2": Pair(
        _HEART2, _HEART2, ((_INDEX_TIP, _INDEX_TIP, (-0.16, 0, 0)), (_THUMB_TIP, _THUMB_TIP, (-0.18, 0, 0)))
    ),
    "holy": Pair(
        _HOLY,
        _HOLY,
        ((_INDEX_ROOT, _INDEX_ROOT, (-0.25, 0, 0)), (_INDEX_TIP, _INDEX_TIP, (-0.16, 0, 0))),
        # Hands whose backs are seen a little: MediaPipe misses those that are seen edge on.
        turn=(5.0, 32.0, 6.0),
    ),
    # One finger's tip at the other hand's thumb: a frame.
    "take_picture": Pair(  # codespell:ignore picture
        replace(_L, roll=-88.0, yaw=BACK),
        replace(_L, roll=-88.0),
        ((_INDEX_TIP, _THUMB_TIP, (0, -0.05, 0.1)), (_THUMB_TIP, _INDEX_TIP, (0, 0.05, -0.1))),
    ),
    "thumb_index2": Pair(_L, _L, ((_THUMB_TIP, _THUMB_TIP, (-0.6, 0, 0)),), stretch=(0.5, 1.6)),
    "timeout": Pair(_FLAT, _UPRIGHT, ((_MIDDLE_ROOT, _MIDDLE_TIP, (0, 0.2, 0)),)),
    "xsign": Pair(_FIST, _FIST, ((0, 0, (1.5, 0, 0.9)),), turn=(5.0, 7.0, 5.0)),
}
"""The two-handed gestures."""


def check_gesture(gesture: str) -> None:
    """Raise a `Hand1000Error` if the renderer has no pose of `gesture`."""
    if gesture not in GESTURES and gesture not in PAIRS and gesture != NO_GESTURE:
        known = ", ".join((*HAGRID_V2, NO_GESTURE))
        raise Hand1000Error(f"gesture {gesture!r} cannot be rendered; choose one of: {known}")


def sample_hands(gesture: str, shape: HandShape, rng: np.random.Generator) -> tuple[PosedHand, ...]:
    """Return the hands of `shape` that make `gesture`: two for a two-handed one; one in any pose for `no_gesture`."""
    if gesture == NO_GESTURE:
        return (sample_arbitrary_pose(shape, rng),)
    if gesture in GESTURES:
        return (sample_gesture(GESTURES[gesture], shape, rng),)
    return _sample_pair(PAIRS[gesture], shape, rng)


def _sample_pair(pair: Pair, shape: HandShape, rng: np.random.Generator) -> tuple[PosedHand, PosedHand]:
    right, left = (sample_gesture(row, shape, rng) for row in (pair.right, pair.left))
    right, left = replace(right, mirrored=False), replace(left, mirrored=True)
    stretch = rng.uniform(*pair.stretch)
    right_joints, left_joints = (hand.to_image(hand.skeleton.joints) for hand in (right, left))
    ways = [stretch * np.array(way) + left_joints[b] - right_joints[a] for a, b, way in pair.joins]
    half = 0.5 * np.mean(ways, axis=0)
    turn = rotation(*(np.clip(rng.normal(size=3), -2, 2) * pair.turn))
    # The same turn, in the frame of a hand that is mirrored afterwards.
    mirror = np.diag([-1.0, 1.0, 1.0])
    right = replace(right, rotation=turn @ right.rotation, wrist=turn @ half)
    left = replace(left, rotation=mirror @ turn @ mirror @ left.rotation, wrist=turn @ -half)
    if rng.integers(2):
        return _mirror(left), _mirror(right)
    return right, left


def _mirror(hand: PosedHand) -> PosedHand:
    return replace(hand, mirrored=not hand.mirrored, wrist=hand.wrist * [-1.0, 1.0, 1.0])
