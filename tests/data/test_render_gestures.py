"""The gestures that the renderer draws: poses, pairs of hands, and that MediaPipe finds them."""

import hashlib

import numpy as np
import pytest

from hand1000.data.render.hands import PAIRS, sample_hands
from hand1000.data.render.people import make_person
from hand1000.data.render.poses import GESTURES, sample_arbitrary_pose
from hand1000.data.render.rendered_image import RenderedImage, make_image
from hand1000.data.render.scene import use_mitsuba
from hand1000.data.render.skeleton import HandShape
from hand1000.gestures import HAGRID_V1, HAGRID_V2, NO_GESTURE, TWO_HANDED
from hand1000.hands.detector import HandDetector


def _joints(gesture: str, seed: int = 0) -> np.ndarray:
    """Return the landmarks of all hands in the image's frame, (H, 21, 3)."""
    hands = sample_hands(gesture, HandShape(), np.random.default_rng(seed))
    return np.stack([hand.place(hand.skeleton.joints, np.zeros(3)) for hand in hands])


def test_every_gesture_has_a_pose_of_its_own() -> None:
    assert {*GESTURES, *PAIRS} == set(HAGRID_V2) and set(PAIRS) == set(TWO_HANDED)
    seen: list[np.ndarray] = []
    for gesture in HAGRID_V2:
        joints = _joints(gesture)
        assert joints.shape == (2 if gesture in TWO_HANDED else 1, 21, 3) and np.isfinite(joints).all()
        relative = joints[0] - joints[0, 0]
        assert all(np.abs(relative - other).max() > 0.1 for other in seen), gesture
        seen.append(relative)


def test_the_poses_of_version_1_stay_as_they_are() -> None:
    joints = np.stack([_joints(gesture, seed)[0] for gesture in (*HAGRID_V1, NO_GESTURE) for seed in range(3)])
    rounded = np.round(joints, 6) + 0.0  # No negative zeros.
    assert (
        hashlib.sha256(rounded.tobytes()).hexdigest()
        == "b221fd787d625e4fcbe6ad47e998440a5ed13a02add7abf2a970047ea15ac692"
    )


@pytest.mark.parametrize("gesture", TWO_HANDED)
def test_two_hands_are_a_left_and_a_right_one_that_meet(gesture: str) -> None:
    for seed in range(10):
        hands = sample_hands(gesture, HandShape(), np.random.default_rng(seed))
        assert {hand.mirrored for hand in hands} == {True, False}
        right, left = sorted(hands, key=lambda hand: hand.mirrored)
        right_elbow, left_elbow = (hand.place(4.0 * hand.skeleton.forearm, np.zeros(3)) for hand in (right, left))
        # A person's right arm is on the left of the image.
        assert right_elbow[0] < left_elbow[0]
        if gesture == "xsign":  # The forearms cross, one in front of the other.
            assert right.wrist[0] > left.wrist[0] and abs(right.wrist[2] - left.wrist[2]) > 0.5
            continue
        first, second = _joints(gesture, seed)
        nearest = np.linalg.norm(first[:, None] - second[None], axis=2).min()
        assert 0.01 < nearest < (1.1 if gesture == "thumb_index2" else 0.5)


@pytest.mark.parametrize(
    ("gesture", "up"),
    [
        ("one", "1000"),
        ("peace", "1100"),
        ("three", "1110"),
        ("four", "1111"),
        ("fist", "0000"),
        ("rock", "1001"),
        ("little_finger", "0001"),
        ("middle_finger", "0100"),
        ("three3", "1101"),
        ("three_gun", "1100"),
        ("thumb_index2", "1000"),
        ("holy", "1111"),
        ("xsign", "0000"),
    ],
)
def test_the_fingers_that_a_gesture_names_are_straight(gesture: str, up: str) -> None:
    for seed in range(10):
        joints = _joints(gesture, seed)[0]
        reach = np.linalg.norm(joints[[8, 12, 16, 20]] - joints[[5, 9, 13, 17]], axis=1)
        straight = np.linalg.norm(np.diff(joints[5:].reshape(4, 4, 3), axis=1), axis=2).sum(1)
        assert "".join("1" if far else "0" for far in reach > 0.8 * straight) == up


def test_ok_joins_the_tips_of_thumb_and_index_finger() -> None:
    for seed in range(10):
        joints = _joints("ok", seed)[0]
        assert np.linalg.norm(joints[4] - joints[8]) < 0.22


def test_arbitrary_poses_vary() -> None:
    rng = np.random.default_rng(0)
    tips = np.array([sample_arbitrary_pose(HandShape(), rng).skeleton.joints[[8, 12, 16, 20], 1] for _ in range(50)])
    assert (tips.std(axis=0) > 0.25).all()


@pytest.fixture(scope="module")
def images_of_version_2() -> dict[str, RenderedImage]:
    """One image of each gesture that version 2 of HaGRID adds."""
    use_mitsuba(threads=1)
    images = {}
    for number, gesture in enumerate(HAGRID_V2[len(HAGRID_V1) :]):
        person = make_person(gesture, np.random.default_rng([7, number]))
        images[gesture] = make_image(gesture, person, np.random.default_rng([8, number]), size=96, samples=9)
    return images


def test_the_gestures_of_version_2_have_one_or_two_hands(images_of_version_2: dict[str, RenderedImage]) -> None:
    for gesture, image in images_of_version_2.items():
        hands = 2 if gesture in TWO_HANDED else 1
        assert image.pixels.shape == (96, 96, 3) and image.pixels.std() > 10
        assert image.hand_landmarks.shape == (hands, 21, 2) and len(image.hand_boxes) == hands
        assert (image.words.hand == "both") == ("two" in image.caption.split()) == (hands == 2)
        for landmarks, (x, y, width, height) in zip(image.hand_landmarks, image.hand_boxes, strict=True):
            assert (landmarks.clip(0, 1) > [x - 0.03, y - 0.03]).all()
            assert (landmarks.clip(0, 1) < [x + width + 0.03, y + height + 0.03]).all()
        left, top, width, height = image.box
        assert all(x >= left and x + w <= left + width + 1e-9 for x, _, w, _ in image.hand_boxes)
        assert all(y >= top and y + h <= top + height + 1e-9 for _, y, _, h in image.hand_boxes)


def test_mediapipe_finds_hands_of_version_2(images_of_version_2: dict[str, RenderedImage]) -> None:
    located = []
    with HandDetector(0.5, max_hands=2) as detector:
        for gesture, image in images_of_version_2.items():
            sizes = np.ptp(image.hand_landmarks, axis=1).max(axis=1)
            errors = [
                np.linalg.norm(hand.landmarks[:, :2] - image.hand_landmarks, axis=2).mean(axis=1) / sizes
                for hand in detector.detect(image.pixels)
            ]
            located += [gesture] if errors and np.min(errors) < 0.2 else []
    assert len(located) >= 12, set(images_of_version_2) - set(located)
