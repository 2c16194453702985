"""Stage I: normalization and the mean of the landmarks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hand1000.core.errors import Hand1000Error
from hand1000.hands.stage1 import (
    compute_mean_feature,
    gesture_feature,
    load_features,
    normalize_landmarks,
    save_features,
)
from tests.support.landmarks import random_landmarks


def test_normalization_removes_all_but_rotation() -> None:
    hands = np.random.default_rng(0).random((4, 21, 3)).astype(np.float32)
    right = np.array([True, True, False, False])
    normalized = normalize_landmarks(hands, right)
    assert np.allclose(normalized[:, 0], 0)
    assert np.allclose(np.linalg.norm(normalized[:, [5, 9, 13, 17]], axis=2).mean(axis=1), 1, atol=1e-6)
    assert np.allclose(normalize_landmarks(hands * 0.4 + [0.3, -0.1, 0.05], right), normalized, atol=1e-5)
    mirrored = hands * [-1, 1, 1] + [1, 0, 0]
    assert np.allclose(normalize_landmarks(mirrored, ~right), normalized, atol=1e-5)
    upside_down = hands * [-1, -1, 1]
    assert np.allclose(normalize_landmarks(upside_down, right), normalized * [-1, -1, 1], atol=1e-5)


def test_feature_is_the_mean_over_images_with_a_hand(tmp_path: Path) -> None:
    landmarks = random_landmarks(without_hand=(1, 4))
    found = landmarks.landmarks[landmarks.found].reshape(4, 63).astype(np.float64)
    raw = compute_mean_feature(landmarks, gesture="call", kind="raw", max_missed=0.5)
    assert np.allclose(raw.mean, found.mean(0)) and np.allclose(raw.std, found.std(0), atol=1e-6)
    assert (raw.images, raw.found, raw.images_without_hand) == (6, 4, ("1.png", "4.png"))
    normalized = compute_mean_feature(landmarks, gesture="call", kind="normalized", max_missed=0.5)
    assert np.allclose(normalized.mean, gesture_feature(landmarks, kind="normalized").mean(0), atol=1e-6)
    assert not np.allclose(normalized.mean, raw.mean)
    other = compute_mean_feature(landmarks.select(["0.png", "2.png"]), gesture="ok", kind="normalized", max_missed=0.5)
    assert np.allclose(other.mean, gesture_feature(landmarks, kind="normalized")[:2].mean(0), atol=1e-6)
    save_features(tmp_path, [normalized, other])
    for saved, loaded in zip((normalized, other), load_features(tmp_path), strict=True):
        assert np.array_equal(loaded.mean, saved.mean) and np.array_equal(loaded.std, saved.std)
        assert replace(loaded, mean=0, std=0) == replace(saved, mean=0, std=0)
        assert loaded.mean_tensor().shape == (63,)


def test_too_many_images_without_a_hand_are_rejected() -> None:
    third = random_landmarks(without_hand=(0, 5))
    compute_mean_feature(third, gesture="call", kind="raw", max_missed=0.34)
    with pytest.raises(Hand1000Error, match=r"2 of 6.*max_missed = 0\.3 .*0\.png.*min_detection_confidence"):
        compute_mean_feature(third, gesture="call", kind="raw", max_missed=0.3)
    with pytest.raises(Hand1000Error, match="6 of 6"):
        compute_mean_feature(random_landmarks(without_hand=tuple(range(6))), gesture="call", kind="raw", max_missed=1.0)


def test_damaged_feature_file_is_named(tmp_path: Path) -> None:
    save_features(tmp_path, [compute_mean_feature(random_landmarks(), gesture="call", kind="raw", max_missed=0.5)])
    (tmp_path / "gesture.safetensors").write_bytes(b"broken")
    with pytest.raises(Hand1000Error, match=r"gesture\.safetensors.*Stage I"):
        load_features(tmp_path)


def test_feature_files_of_version_0_1_0_load(tmp_path: Path) -> None:
    feature = compute_mean_feature(random_landmarks(without_hand=(1,)), gesture="call", kind="raw", max_missed=0.5)
    save_features(tmp_path, [feature])
    path = tmp_path / "gesture.json"
    path.write_text(path.read_text().replace("images_without_hand", "missed").replace("raw", "normalised"))
    (loaded,) = load_features(tmp_path)
    assert loaded.images_without_hand == ("1.png",) and np.array_equal(loaded.mean, feature.mean)
