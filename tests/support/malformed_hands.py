"""Rendered malformed hands, which metrics have to detect and HandRefiner has to repair."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np

from hand1000.data.render.hands import sample_hands
from hand1000.data.render.people import make_person
from hand1000.data.render.rendered_image import RenderedImage, render_pose
from hand1000.data.render.skeleton import Skeleton

Deformation = Callable[[Skeleton], Skeleton]


def normal_hand(skeleton: Skeleton) -> Skeleton:
    """Leave the hand as it is."""
    return skeleton


def remove_ring_finger(skeleton: Skeleton) -> Skeleton:
    """Leave four digits."""
    rows = [*range(13), *range(17, 21)]
    return replace(skeleton, joints=skeleton.joints[rows], backs=np.delete(skeleton.backs, 3, axis=0))


def add_second_pinky(skeleton: Skeleton) -> Skeleton:
    """Add a pinky beside the first, six digits in all."""
    pinky = skeleton.joints[17:21]
    angle = np.radians(24.0)
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    second = pinky[0] + [-0.05, -0.22, 0.0] + (pinky - pinky[0]) @ rotation.T
    return replace(
        skeleton,
        joints=np.concatenate([skeleton.joints, second]),
        backs=np.concatenate([skeleton.backs, skeleton.backs[4:]]),
    )


def change_finger_lengths(skeleton: Skeleton) -> Skeleton:
    """Halve the middle finger and double the pinky."""
    return _scale_digits(skeleton, ((9, 0.5), (17, 1.9)))


def shorten_fingers(skeleton: Skeleton) -> Skeleton:
    """Shorten the fingers to about a quarter and the thumb to half."""
    return _scale_digits(skeleton, ((1, 0.5), (5, 0.25), (9, 0.3), (13, 0.25), (17, 0.3)))


def _scale_digits(skeleton: Skeleton, factors: tuple[tuple[int, float], ...]) -> Skeleton:
    joints = skeleton.joints.copy()
    for first, factor in factors:
        joints[first : first + 4] = joints[first] + factor * (joints[first : first + 4] - joints[first])
    return replace(skeleton, joints=joints)


@cache
def render_malformed_hands(
    deform: Deformation, numbers: range, size: int = 64, gesture: str = "palm"
) -> tuple[RenderedImage, ...]:
    """Render one image per number, each of another person; people and scenes do not depend on `deform`."""
    images = []
    for number in numbers:
        person = make_person(f"malformed-{number}", np.random.default_rng([3, number]))
        hands = sample_hands(gesture, person.shape, np.random.default_rng([4, number]))
        hands = [replace(hand, skeleton=deform(hand.skeleton)) for hand in hands]
        scene = np.random.default_rng([5, number])
        images.append(render_pose(hands, gesture, person, scene, size=size, samples=16))
    return tuple(images)
