"""A data set in HaGRID's layout whose annotations have landmarks, of hands that are sampled and not drawn."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from hand1000.hands.sampled_hands import sample_hands

GESTURES = ("four", "like", "peace")
SIZE = (24, 48)


def write_annotated_hands(root: Path, per_gesture: int = 70, people: int = 60) -> Path:
    """Write gray images and annotations of `GESTURES`, among them a second hand and a hand without landmarks."""
    rng = np.random.default_rng(5)
    (root / "annotations" / "train").mkdir(parents=True)
    for gesture in GESTURES:
        (root / gesture).mkdir()
        entries = {}
        for index, hand in enumerate(sample_hands(gesture, per_gesture, rng)):
            name, left = f"{gesture}-{index}", bool(rng.integers(2))
            Image.new("L", SIZE, 90).save(root / gesture / f"{name}.jpg")
            entries[name] = {
                "bboxes": [[0.3, 0.3, 0.4, 0.4]],
                "labels": [gesture],
                "user_id": f"user-{rng.integers(people)}",
                "hand_landmarks": [_relative(hand, left)],
                "meta": {"handedness": "left" if left else "right"},
            }
        other = sample_hands("no_gesture", 1, rng)[0]
        entries[f"{gesture}-0"]["bboxes"] *= 2
        entries[f"{gesture}-0"]["labels"].append("no_gesture")
        entries[f"{gesture}-0"]["hand_landmarks"].append(_relative(other, False))
        if gesture == "like":
            entries["like-1"]["hand_landmarks"] = [[]]
        (root / "annotations" / "train" / f"{gesture}.json").write_text(json.dumps(entries))
    return root


def _relative(hand: np.ndarray, left: bool) -> list[list[float]]:
    """The landmarks within an image of `SIZE`, relative to it, mirrored for a left hand."""
    points = hand[:, :2] * [-1.0 if left else 1.0, 1.0]
    low, span = points.min(axis=0), np.ptp(points, axis=0).max()
    pixels = (points - low) / span * min(SIZE) * 0.8 + [2.0, 20.0]
    return np.round(pixels / SIZE, 6).tolist()
