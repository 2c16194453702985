"""Hands as no person has them, rendered: what a metric has to notice and HandRefiner to mend."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np

from hand1000.data.render.people import make_person
from hand1000.data.render.picture import Picture, picture_of
from hand1000.data.render.poses import sample_pose
from hand1000.data.render.skeleton import Skeleton

Spoil = Callable[[Skeleton], Skeleton]


def as_it_is(skeleton: Skeleton) -> Skeleton:
    """A proper hand."""
    return skeleton


def four_fingers(skeleton: Skeleton) -> Skeleton:
    """Without its ring finger."""
    rows = [*range(13), *range(17, 21)]
    return replace(skeleton, joints=skeleton.joints[rows], backs=np.delete(skeleton.backs, 3, axis=0))


def six_fingers(skeleton: Skeleton) -> Skeleton:
    """With a second pinky beside the first."""
    pinky = skeleton.joints[17:21]
    turn = np.radians(24.0)
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    further = pinky[0] + [-0.05, -0.22, 0.0] + (pinky - pinky[0]) @ rotation.T
    return replace(
        skeleton,
        joints=np.concatenate([skeleton.joints, further]),
        backs=np.concatenate([skeleton.backs, skeleton.backs[4:]]),
    )


def swapped_fingers(skeleton: Skeleton) -> Skeleton:
    """A middle finger half as long, a pinky twice as long."""
    joints = skeleton.joints.copy()
    for first, factor in ((9, 0.5), (17, 1.9)):
        joints[first : first + 4] = joints[first] + factor * (joints[first : first + 4] - joints[first])
    return replace(skeleton, joints=joints)


def short_fingers(skeleton: Skeleton) -> Skeleton:
    """Fingers a quarter as long, and half a thumb."""
    joints = skeleton.joints.copy()
    for first, factor in ((1, 0.5), (5, 0.25), (9, 0.3), (13, 0.25), (17, 0.3)):
        joints[first : first + 4] = joints[first] + factor * (joints[first : first + 4] - joints[first])
    return replace(skeleton, joints=joints)


@cache
def malformed(spoil: Spoil, numbers: range, size: int = 64, gesture: str = "palm") -> tuple[Picture, ...]:
    """A picture of `gesture` a number, each another person's; the same people and scenes whatever is spoilt."""
    pictures = []
    for number in numbers:
        person = make_person(f"malformed-{number}", np.random.default_rng([3, number]))
        posed = sample_pose(gesture, person.shape, np.random.default_rng([4, number]))
        posed = replace(posed, skeleton=spoil(posed.skeleton))
        scene = np.random.default_rng([5, number])
        pictures.append(picture_of(posed, gesture, person, scene, size=size, samples=16))
    return tuple(pictures)
