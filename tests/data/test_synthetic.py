"""Synthetic images for pretraining."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from hand1000.core.progress import noop_callback


def test_synthetic_images_are_mirrored_with_the_other_hand(tmp_path: Path) -> None:
    from hand1000.data.synthetic import load_synthetic_images, render_synthetic_images

    render_synthetic_images(tmp_path, images=2, gesture_images=0, seed=1, size=32, on_progress=noop_callback)
    images, captions = load_synthetic_images(tmp_path, 180)
    assert images.shape == (4, 32, 32, 3) and np.array_equal(images[2], images[0][:, ::-1])
    sides = [("left hand" in caption or " left " in caption) for caption in captions]
    assert sides[2:] == [not side for side in sides[:2]]
    words, others = captions[0].split(), captions[2].split()
    assert [pair for pair in zip(words, others, strict=True) if pair[0] != pair[1]] in (
        [("left", "right")],
        [("right", "left")],
    )


def test_hands_tilted_too_far_are_left_out(tmp_path: Path) -> None:

    from hand1000.data.synthetic import load_synthetic_images

    (tmp_path / "no_gesture").mkdir()
    (tmp_path / "annotations" / "train").mkdir(parents=True)
    entries = {}
    # The middle finger's root is at these degrees, clockwise from straight above the wrist.
    for degrees in (0, 30, -40, 170):
        name = f"hand{degrees}"
        Image.new("RGB", (16, 16)).save(tmp_path / "no_gesture" / f"{name}.jpg")
        landmarks = np.full((21, 2), 0.5)
        landmarks[9] += [0.2 * np.sin(np.radians(degrees)), -0.2 * np.cos(np.radians(degrees))]
        entries[name] = {
            "hand_landmarks": [landmarks.tolist()],
            "meta": {},
            "bboxes": [[0, 0, 1, 1]],
            "caption": f"a hand at {degrees}",
        }
    (tmp_path / "annotations" / "train" / "no_gesture.json").write_text(json.dumps(entries))
    assert load_synthetic_images(tmp_path, 35)[1] == ["a hand at 0", "a hand at 30"] * 2
    assert len(load_synthetic_images(tmp_path, 180)[1]) == 8
