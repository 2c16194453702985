"""Landmarks of an image set as files, and their merge from shards."""

import json
from pathlib import Path

import pytest

from hand1000.core.errors import Hand1000Error
from hand1000.hands.landmarks import Landmarks
from tests.support.landmarks import equal_landmarks, random_landmarks


def test_landmarks_are_saved_and_loaded(tmp_path: Path) -> None:
    landmarks = random_landmarks(without_hand=(2,))
    landmarks.save(tmp_path)
    assert equal_landmarks(Landmarks.load(tmp_path), landmarks)
    (tmp_path / "landmarks.json").write_text(json.dumps({"file_names": ["0.png"]}))
    with pytest.raises(Hand1000Error, match="landmarks"):
        Landmarks.load(tmp_path)
    (tmp_path / "landmarks.safetensors").write_bytes(b"broken")
    with pytest.raises(Hand1000Error, match="not valid landmarks"):
        Landmarks.load(tmp_path)


def test_image_in_two_shards_is_rejected() -> None:
    with pytest.raises(Hand1000Error, match=r"0\.png"):
        Landmarks.concatenate([random_landmarks(), random_landmarks()])
