"""Joints of many hands at once, compared with the renderer's single hand."""

import numpy as np

from hand1000.data.render.skeleton import HandPose, HandShape, Thumb, forward
from hand1000.hands.kinematics import HandAngles, mean_bones, pose_hands, reach_with_thumb, sample_bones, touch_finger

COUNT = 40


def make_angles(rng: np.random.Generator) -> HandAngles:
    thumb = rng.uniform([0, 0, -10, -10, 0], [70, 50, 50, 60, 50], (COUNT, 5))
    return HandAngles(rng.uniform(-5, 105, (COUNT, 4, 3)), rng.uniform(-15, 15, (COUNT, 4)), thumb)


def test_average_hands_are_the_renderers() -> None:
    angles = make_angles(np.random.default_rng(0))
    joints = pose_hands(mean_bones(COUNT), angles)
    for index in range(COUNT):
        pose = HandPose(angles.flexion[index], angles.abduction[index], Thumb(*angles.thumb[index]), np.zeros(2))
        assert np.allclose(joints[index], forward(HandShape(), pose).joints, atol=1e-9)


def test_people_differ_in_every_bone_and_keep_it_in_every_pose() -> None:
    rng = np.random.default_rng(1)
    bones = sample_bones(COUNT, rng)
    for angles in (make_angles(rng), make_angles(rng)):
        joints = pose_hands(bones, angles)
        lengths = np.linalg.norm(joints[:, 6:9] - joints[:, 5:8], axis=2)
        assert np.allclose(lengths, bones.phalanges[:, 0])
    spread = bones.phalanges.std(axis=0) / bones.phalanges.mean(axis=0)
    assert (spread > 0.04).all() and (spread < 0.2).all()


def test_a_thumb_reaches_a_curled_finger_within_its_joints_limits() -> None:
    rng = np.random.default_rng(2)
    bones, angles = mean_bones(COUNT), make_angles(rng)
    angles = HandAngles(np.tile([80.0, 95.0, 55.0], (COUNT, 4, 1)), angles.abduction, angles.thumb)
    target = touch_finger(bones, angles, np.full(COUNT, 1), np.full(COUNT, 0.5))
    reached = reach_with_thumb(bones, angles.thumb, target)
    tips = pose_hands(bones, HandAngles(angles.flexion, angles.abduction, reached))[:, 4]
    assert np.median(np.linalg.norm(tips - target, axis=1)) < 0.05
    assert (reached[:, 0] <= 82).all() and (np.abs(reached[:, :4]) <= 90).all()
