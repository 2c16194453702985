"""Sampled landmarks: what identifies each gesture holds, and the errors are MediaPipe's."""

import numpy as np
import pytest

from hand1000.gestures import HAGRID_V1, NO_GESTURE, PHRASES
from hand1000.hands.gesture_poses import POSES
from hand1000.hands.kinematics import pose_hands, sample_bones
from hand1000.hands.sampled_hands import add_detection_errors, project, sample_hands, sample_pose

THUMB, INDEX, PINKY = 4, 8, 20
COUNT = 200


def sample(gesture: str, seed: int = 0) -> np.ndarray:
    return sample_hands(gesture, COUNT, np.random.default_rng(seed))


@pytest.mark.parametrize("gesture", [*PHRASES, NO_GESTURE])
def test_every_gesture_is_sampled_reproducibly(gesture: str) -> None:
    hands = sample(gesture)
    assert hands.shape == (COUNT, 21, 3) and hands.dtype == np.float32 and np.isfinite(hands).all()
    assert np.array_equal(hands, sample(gesture)) and not np.array_equal(hands, sample(gesture, 1))
    assert np.abs(hands - hands[:, :1]).max() < 12  # In palm lengths, at most as perspective enlarges a near hand.


def test_thumbs_up_and_down_differ_in_the_direction_only() -> None:
    for gesture, sign in (("like", -1), ("dislike", 1)):
        hands = sample(gesture)
        thumb = hands[:, THUMB, 1] - hands[:, 2, 1]
        assert (np.sign(thumb) == sign).mean() > 0.98


def test_palm_and_back_differ_in_the_order_of_the_knuckles() -> None:
    for front, back in (("peace", "peace_inverted"), ("stop", "stop_inverted"), ("two_up", "two_up_inverted")):
        for gesture, sign in ((front, 1), (back, -1)):
            hands = sample(gesture)
            assert (np.sign(hands[:, 5, 0] - hands[:, 17, 0]) == sign).mean() > 0.85


def test_straight_fingers_are_far_from_the_wrist_before_projection() -> None:
    rng = np.random.default_rng(3)
    for gesture in HAGRID_V1:
        bones = sample_bones(COUNT, rng)
        angles, rotations = sample_pose(gesture, bones, rng)
        joints = pose_hands(bones, angles)
        reach = np.linalg.norm(joints[:, 8::4], axis=2) / np.linalg.norm(joints[:, 5::4], axis=2)
        for finger, state in enumerate(POSES[gesture].fingers):
            if state == "S" or (state == "C" and not POSES[gesture].loose):
                assert ((reach[:, finger] > 1.4) == (state == "S")).mean() > 0.9, (gesture, finger)
        assert np.allclose(rotations @ rotations.transpose(0, 2, 1), np.eye(3), atol=1e-9)


def test_near_cameras_foreshorten_and_errors_are_largest_in_depth() -> None:
    rng = np.random.default_rng(4)
    bones = sample_bones(COUNT, rng)
    angles, rotations = sample_pose("palm", bones, rng)
    points = project(pose_hands(bones, angles) @ rotations.transpose(0, 2, 1), rng)
    detected = add_detection_errors(points, np.tile(np.eye(3), (COUNT, 1, 1)), rng)
    same_side = np.abs(detected[:, PINKY, 0] - points[:, PINKY, 0]) < 0.5
    assert same_side.mean() > 0.95  # Few hands are taken for the other side.
    error = np.abs(detected - points)[same_side]
    assert np.median(error[..., :2]) < 0.1 < 0.5 and np.median(error[..., 2]) > np.median(error[..., :2])
