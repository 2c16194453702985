"""Training pairs of images and depth maps."""

from pathlib import Path

import numpy as np
import pytest

from hand1000.core.errors import Hand1000Error
from hand1000.core.progress import noop_callback
from hand1000.data.synthetic import render_synthetic_images
from hand1000.hands.depth_pairs import DepthPairs, build_depth_pairs, landmark_error
from tests.support.rendered_hands import detect, rendered_hands


def test_pairs_hold_correctly_detected_hands(tmp_path: Path) -> None:
    render_synthetic_images(tmp_path / "set", images=6, gesture_images=0, seed=5, size=64, on_progress=noop_callback)
    options = {"max_tilt": 180, "min_detection_confidence": 0.5}
    seen: list[tuple[int, int]] = []
    pairs = build_depth_pairs(
        tmp_path / "set", max_error=0.3, on_progress=lambda done, total, _: seen.append((done, total)), **options
    )
    assert 0 < len(pairs.images) <= 6 and seen[-1] == (6, 6)
    with pytest.raises(Hand1000Error, match="max_error"):
        build_depth_pairs(tmp_path / "set", max_error=1e-4, **options)
    both = pairs.with_mirrored()
    count = len(pairs.images)
    assert len(both.captions) == 2 * count and {"left", "right"} & set(both.captions[0].split())
    assert (both.depths[count] == pairs.depths[0, :, ::-1]).all()
    assert both.boxes[count, 0] == pytest.approx(1 - pairs.boxes[0, 0] - pairs.boxes[0, 2], abs=1e-6)
    pairs.save(tmp_path)
    loaded = DepthPairs.load(tmp_path)
    assert loaded.captions == pairs.captions and (loaded.depths == pairs.depths).all()
    (tmp_path / "pairs.safetensors").write_bytes(b"")
    with pytest.raises(Hand1000Error, match="build the pairs again"):
        DepthPairs.load(tmp_path)


def test_landmark_error_is_in_palm_lengths() -> None:
    (hand,) = detect(rendered_hands()[0].pixels)
    moved = hand.landmarks + np.array([0.1, 0, 0], np.float32)
    assert landmark_error(hand.landmarks, hand.landmarks) == 0
    assert landmark_error(2 * hand.landmarks, 2 * moved) == pytest.approx(landmark_error(hand.landmarks, moved))
