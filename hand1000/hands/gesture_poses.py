"""How people make each gesture: which fingers are straight, where the thumb is, and how the hand is turned.

The ranges are wide on purpose. They follow the anatomy of hands rather than any set of images: the outer joint bends
about two thirds as much as the middle one, neighboring fingers bend together, spread fingers close up as they bend,
and the thumb of an extended hand may have any angle to the palm.
"""

from dataclasses import dataclass

import numpy as np

from hand1000.gestures import NO_GESTURE
from hand1000.hands.kinematics import HandAngles, HandBones, pose_hands, reach_with_thumb, touch_finger

STRAIGHT, CURLED, HALF, CLAW, PINCH, ARCH = "SCHLPA"
"""States of a finger: straight, curled into the palm, half bent, a claw, at the thumb's tip, an arch."""

SPREADS = {
    "spread": (np.array([11.0, 2.0, -8.0, -19.0]), 0.55, 1.5),
    "relaxed": (np.array([4.0, 1.0, -3.0, -8.0]), 0.2, 1.9),
    "together": (np.array([-1.5, 0.5, 1.5, 3.5]), 0.4, 1.3),
    "vee": (np.array([11.0, -8.0, -6.0, -8.0]), 0.6, 1.5),
}
"""Abduction of index to pinky in degrees, and the lowest and highest factor of it."""


LOOSE_SHARE = 0.2


@dataclass(frozen=True)
class View:
    """How a hand is turned, in degrees, with the share of the hands that are.

    The direction `up` of the hand points up in the image. Then the hand turns about the vertical by `facing` (0: palm
    to the camera, 180: back of a right hand), leans to the camera by `pitch`, and tilts in the image by `tilt`. Each
    is a mean and a standard deviation; a spread in `facing` beyond 90 degrees is uniform.
    """

    share: float = 1.0
    facing: tuple[float, float] = (0.0, 27.0)
    tilt: tuple[float, float] = (0.0, 18.0)
    pitch: tuple[float, float] = (0.0, 17.0)
    up: str = "fingers"


@dataclass(frozen=True)
class GesturePose:
    """The pose of a gesture's right hand.

    Attributes:
        fingers: States of index to pinky.
        thumbs: What the thumb may do: "out", "beside", "tucked", "pinch", or the finger, 0 to 3, that it lies on.
        spread: A key of `SPREADS`.
        views: How the hand is turned.
        loose: States of the fingers of the `LOOSE_SHARE` of people who curl them less; "" if nobody does.
    """

    fingers: str
    thumbs: tuple[str, ...]
    spread: str = "relaxed"
    views: tuple[View, ...] = (View(0.92), View(0.08, (180.0, 27.0)))
    loose: str = ""


_BACK = (View(facing=(180.0, 28.0)),)
_PALM = (View(),)
_BOTH = (View(0.5), View(0.5, (180.0, 30.0)))
_THUMB_UP = (
    View(0.75, (80.0, 130.0), (0.0, 22.0), (0.0, 15.0), "thumb"),
    View(0.25, (0.0, 40.0), (0.0, 22.0), (0.0, 15.0), "thumb"),
)
_THUMB_DOWN = (
    View(0.5, (50.0, 130.0), (180.0, 24.0), (0.0, 18.0), "thumb"),
    View(0.3, (0.0, 45.0), (180.0, 24.0), (0.0, 18.0), "thumb"),
    View(0.2, (0.0, 180.0), (180.0, 24.0), (0.0, 18.0), "thumb"),
)
_EDGE = (View(0.5, (90.0, 28.0)), View(0.5, (-90.0, 28.0)))
_LYING = tuple(View(0.5, facing, (tilt, 22.0)) for facing in ((0.0, 80.0), (180.0, 80.0)) for tilt in (90.0, -90.0))
_ON_FINGER = ("0", "1", "1", "2", "beside")

POSES: dict[str, GesturePose] = {
    "call": GesturePose(
        "CCCS",
        ("out",),
        "relaxed",
        (
            View(0.3, (0.0, 35.0), (0.0, 60.0)),
            View(0.2, (180.0, 35.0), (0.0, 60.0)),
            View(0.4, (70.0, 150.0), (0.0, 35.0), (0.0, 18.0), "thumb"),
            View(0.1, (0.0, 180.0), (0.0, 75.0)),
        ),
    ),
    "dislike": GesturePose("CCCC", ("up",), "relaxed", _THUMB_DOWN, loose="HHHH"),
    "fist": GesturePose(
        "CCCC",
        ("0", "1", "1", "beside", "tucked"),
        "relaxed",
        (
            View(0.55, (0.0, 38.0), (0.0, 24.0)),
            View(0.3, (0.0, 45.0), (0.0, 25.0), (45.0, 25.0)),
            View(0.15, (0.0, 180.0), (0.0, 25.0)),
        ),
    ),
    "four": GesturePose(
        "SSSS", ("tucked", "tucked", "tucked", "across"), "spread", (View(0.95), View(0.05, (180, 27)))
    ),
    "like": GesturePose("CCCC", ("up",), "relaxed", _THUMB_UP, loose="HHHH"),
    "mute": GesturePose(
        "SCCC",
        ("0", "1", "1", "beside", "out", "half"),
        "relaxed",
        (
            View(0.55, (100.0, 48.0), (0.0, 20.0), (0.0, 20.0)),
            View(0.25, (-95.0, 40.0), (0.0, 20.0), (0.0, 20.0)),
            View(0.2, (38.0, 13.0), (0.0, 20.0), (0.0, 20.0)),
        ),
        loose="SHHH",
    ),
    "ok": GesturePose(
        "PSSS",
        ("pinch",),
        "spread",
        (View(0.5, (0.0, 38.0)), View(0.25, (50.0, 25.0)), View(0.2, (-50.0, 25.0)), View(0.05, (180.0, 27.0))),
    ),
    "one": GesturePose("SCCC", ("0", "1", "1", "2", "beside"), "relaxed", (View(0.93), View(0.07, (180.0, 22.0)))),
    "palm": GesturePose("SSSS", ("out",), "spread", (View(0.96), View(0.04, (180.0, 25.0)))),
    "peace": GesturePose("SSCC", ("2", "2", "1", "3"), "vee", _PALM),
    "peace_inverted": GesturePose("SSCC", ("2", "2", "1", "3"), "vee", _BACK),
    "rock": GesturePose("SCCS", ("1", "1", "2", "2"), "relaxed", (View(0.8), View(0.2, (180.0, 27.0)))),
    "stop": GesturePose("SSSS", ("beside",), "together", _PALM),
    "stop_inverted": GesturePose("SSSS", ("beside",), "together", _BACK),
    "three": GesturePose("SSSC", ("3", "3", "2", "tucked"), "spread"),
    "three2": GesturePose("SSCC", ("out",), "vee"),
    "two_up": GesturePose("SSCC", ("2", "2", "1", "3"), "together", _PALM),
    "two_up_inverted": GesturePose("SSCC", ("2", "2", "1", "3"), "together", _BACK),
    "grabbing": GesturePose("LLLL", ("out", "half"), "spread", (View(0.8, (0.0, 35.0)), View(0.2, (0.0, 60.0)))),
    "grip": GesturePose("AAAA", ("pinch",), "together", (View(0.75, (-80.0, 35.0)), View(0.25, (80.0, 35.0)))),
    "little_finger": GesturePose("CCCS", ("0", "1", "1", "2"), "relaxed"),
    "middle_finger": GesturePose("CSCC", ("0", "2", "2", "beside"), "relaxed", _BOTH),
    "point": GesturePose(
        "SCCC",
        ("0", "1", "beside", "out"),
        "relaxed",
        (
            View(0.75, (0.0, 180.0), (0.0, 30.0), (76.0, 13.0)),
            *(View(0.12, (60.0, 90.0), (tilt, 20.0)) for tilt in (90, -90)),
        ),
    ),
    "three3": GesturePose("SSCS", ("2", "2", "tucked"), "spread"),
    "three_gun": GesturePose(
        "SSCC",
        ("out",),
        "together",
        (View(0.5, (0.0, 40.0), (0.0, 25.0), up="thumb"), View(0.5, (180.0, 40.0), (0.0, 25.0), up="thumb")),
    ),
    "thumb_index": GesturePose("SCCC", ("out",), "relaxed", _BOTH),
    "hand_heart": GesturePose(
        "AAAA", ("half", "out"), "together", (View(0.5, (-90, 40), (0, 40)), View(0.5, (90, 40), (0, 40)))
    ),
    "hand_heart2": GesturePose(
        "ASSS", ("half", "out"), "spread", (View(0.5, (-60, 45), (0, 30)), View(0.5, (60, 45), (0, 30)))
    ),
    "holy": GesturePose("SSSS", ("beside",), "together", _EDGE),
    "take_picture": GesturePose("SCCC", ("out",), "relaxed", _LYING),  # codespell:ignore picture
    "thumb_index2": GesturePose("SCCC", ("out",), "relaxed", _BOTH),
    "timeout": GesturePose("SSSS", ("beside",), "together", (*_LYING, *_EDGE)),
    "xsign": GesturePose("CCCC", ("0", "1", "beside"), "relaxed", (View(1.0, (180.0, 60.0), (0.0, 40.0)),)),
}
"""The poses of HaGRID's gestures; those of two hands are the pose of each hand."""

# Combinations of straight and curled fingers that no gesture has.
_OTHER_FINGERS = ("CCSC", "CSCS", "CCSS", "SCSC", "SCSS", "CSSC")


def sample_angles(gesture: str, bones: HandBones, rng: np.random.Generator) -> HandAngles:
    """Sample joint angles of hands that make `gesture`, or that make none for `no_gesture`."""
    count = len(bones)
    if gesture == NO_GESTURE:
        fingers = np.where(rng.random(count) < 0.65, "HHHH", rng.choice(_OTHER_FINGERS, count))
        spreads = rng.choice(["relaxed", "spread", "together"], count, p=(0.6, 0.2, 0.2))
        thumbs = rng.choice(["out", "beside", "half", "across"], count)
    else:
        pose = POSES[gesture]
        loose = rng.random(count) < (LOOSE_SHARE if pose.loose else 0.0)
        fingers, spreads = np.where(loose, pose.loose, pose.fingers), np.full(count, pose.spread)
        thumbs = rng.choice(pose.thumbs, count)
    flexion = _sample_flexion(fingers, rng)
    angles = HandAngles(flexion, _sample_abduction(spreads, rng), _sample_thumbs(thumbs, rng))
    return HandAngles(flexion, angles.abduction, _place_thumbs(bones, angles, thumbs, rng))


def _sample_flexion(fingers: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Flexion (N, 4, 3) of fingers in the states of N words of four letters."""
    count = len(fingers)
    states = np.array([list(word) for word in fingers])
    # The fingers of a hand bend in unison for the most part, each a little on its own.
    loose = np.clip(rng.beta(1.1, 2.6, (count, 1)) + rng.normal(0.0, 0.12, (count, 4)), 0.0, 1.0)
    curl = np.clip(rng.random((count, 1)) + rng.normal(0.0, 0.13, (count, 4)), 0.0, 1.0)
    own = rng.normal(0.0, 1.0, (count, 4, 3))
    middle = {
        STRAIGHT: 2.0 + 25.0 * loose + 2.0 * own[..., 1],
        CURLED: 78.0 + 30.0 * curl + 6.0 * own[..., 1],
        HALF: 45.0 + 40.0 * curl + 7.0 * own[..., 1],
        CLAW: 58.0 + 35.0 * curl + 8.0 * own[..., 1],
        PINCH: 42.0 + 45.0 * curl + 8.0 * own[..., 1],
        ARCH: 25.0 + 40.0 * curl + 7.0 * own[..., 1],
    }
    knuckle = {
        STRAIGHT: 1.0 + 12.0 * loose + (3.0 + 6.0 * loose) * own[..., 0],
        CURLED: 48.0 + 42.0 * curl + 8.0 * own[..., 0],
        HALF: 8.0 + 45.0 * rng.random((count, 1)) + 7.0 * own[..., 0],
        CLAW: 8.0 + 12.0 * own[..., 0],
        PINCH: 42.0 + 12.0 * own[..., 0],
        ARCH: 55.0 + 13.0 * own[..., 0],
    }
    flexion = np.zeros((count, 4, 3))
    for state, values in middle.items():
        chosen = states == state
        flexion[chosen, 0], flexion[chosen, 1] = knuckle[state][chosen], values[chosen]
    flexion[..., 2] = 0.6 * flexion[..., 1] + 6.0 * own[..., 2]
    _couple_neighbors(flexion, states, rng)
    return np.clip(flexion, [-25.0, -8.0, -12.0], [100.0, 115.0, 85.0])


def _couple_neighbors(flexion: np.ndarray, states: np.ndarray, rng: np.random.Generator) -> None:
    """Let tendons that fingers share lift a bent finger beside a straight one, and bend the straight one, in place."""
    straight = states == STRAIGHT
    for finger, neighbor, most in ((2, 3, 28.0), (3, 2, 28.0), (2, 1, 14.0), (1, 2, 10.0)):
        coupled = (states[:, finger] == CURLED) & straight[:, neighbor]
        lift = rng.random(len(states)) * most * coupled
        flexion[:, finger, 0] -= lift
        flexion[:, finger, 1] -= 0.5 * lift
        flexion[:, neighbor, 0] += 0.4 * lift * rng.random(len(states))


def _sample_abduction(spreads: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    abduction = np.zeros((len(spreads), 4))
    for name, (base, low, high) in SPREADS.items():
        chosen = spreads == name
        abduction[chosen] = base * rng.uniform(low, high, (chosen.sum(), 1))
    return abduction + rng.normal(0.0, 1.3, abduction.shape)


_THUMBS = {
    "out": ((32.0, 76.0), (-6.0, 42.0), (-18.0, 22.0), (-28.0, 22.0), (5.0, 50.0)),
    "up": ((46.0, 82.0), (-8.0, 36.0), (-22.0, 14.0), (-30.0, 16.0), (5.0, 50.0)),
    "beside": ((2.0, 34.0), (0.0, 40.0), (-5.0, 28.0), (-10.0, 28.0), (15.0, 45.0)),
    "half": ((15.0, 50.0), (10.0, 50.0), (0.0, 40.0), (5.0, 50.0), (10.0, 50.0)),
}
_CLOSED_THUMB = ((2.0, 24.0), (28.0, 52.0), (15.0, 45.0), (10.0, 45.0), (10.0, 32.0))
"""Lowest and highest of the thumb's five angles."""


def _sample_thumbs(thumbs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    angles = np.zeros((len(thumbs), 5))
    for name in sorted(set(thumbs.tolist())):  # The order of a set of strings differs between processes.
        chosen, (low, high) = thumbs == name, np.array(_THUMBS.get(name, _CLOSED_THUMB)).T
        angles[chosen] = rng.uniform(low, high, (chosen.sum(), 5))
    return angles


def _place_thumbs(bones: HandBones, angles: HandAngles, thumbs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Bring the thumbs that touch something to it, within a spread that the anatomy allows."""
    count = len(thumbs)
    on_finger = np.isin(thumbs, ["0", "1", "2", "3"])
    fingers = np.where(on_finger, np.where(on_finger, thumbs, "0").astype(int), 0)
    target = touch_finger(bones, angles, fingers, rng.uniform(-0.3, 1.1, count))
    in_palm = np.isin(thumbs, ["tucked", "across"])
    palm = rng.uniform([-0.28, 0.45, 0.08], [0.18, 0.98, 0.32], (count, 3))
    target = np.where(in_palm[:, None], palm, target)
    pinching = thumbs == "pinch"
    tips = pose_hands(bones, angles)[:, [8, 12]]
    tip = np.where((rng.random(count) < 0.75)[:, None], tips[:, 0], tips.mean(axis=1))
    target = np.where(pinching[:, None], tip, target) + rng.normal(0.0, 0.06, (count, 3))
    reached = reach_with_thumb(bones, angles.thumb, target)
    return np.where((on_finger | in_palm | pinching)[:, None], reached, angles.thumb)
