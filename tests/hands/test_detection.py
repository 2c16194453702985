"""Detection on image sets: order, shards, and the labelled hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hand1000.core.errors import Hand1000Error
from hand1000.hands.detection import MIN_IOU, detect_hands, match_labelled_hand, read_square
from hand1000.hands.detector import Hand
from hand1000.hands.landmarks import Landmarks
from hand1000.hands.stage1 import compute_mean_feature
from tests.support.landmarks import equal_landmarks
from tests.support.rendered_hands import detect, make_record, rendered_hands, write_image_set


def test_shards_give_the_bits_of_the_whole_set(tmp_path: Path) -> None:
    records = write_image_set(tmp_path, rendered_hands())
    steps: list[tuple[int, int]] = []
    whole = detect_hands(
        tmp_path, records, min_detection_confidence=0.5, on_progress=lambda done, total, _: steps.append((done, total))
    )
    assert steps == [(index + 1, len(records)) for index in range(len(records))]
    assert whole.found.all() and whole.file_names == tuple(record.file_name for record in records)
    shards = [detect_hands(tmp_path, records[start::3], min_detection_confidence=0.5) for start in (1, 0, 2)]
    assert equal_landmarks(Landmarks.concatenate(shards), whole)
    features = [
        compute_mean_feature(part, gesture="palm", kind="normalized", max_missed=0.0)
        for part in (whole, Landmarks.concatenate(shards))
    ]
    assert features[0].mean.tobytes() == features[1].mean.tobytes()


def test_hand_outside_the_labelled_box_does_not_count(tmp_path: Path) -> None:
    (record, *_) = write_image_set(tmp_path, rendered_hands()[:1])
    elsewhere = record.model_copy(update={"bbox": (0.0, 0.0, 0.05, 0.05)})
    unlabelled = record.model_copy(update={"bbox": None})
    found = [
        detect_hands(tmp_path, [image], min_detection_confidence=0.5).found[0]
        for image in (record, elsewhere, unlabelled)
    ]
    assert found == [True, False, True]


def test_labelled_hand_of_two_is_matched() -> None:
    def hand(x: float, side: float) -> Hand:
        points = np.full((21, 3), 0.2, np.float32)
        points[:, 0] = x
        points[1, :2] = x + side, 0.2 + side
        return Hand(points, 0.9, True)

    left, right = hand(0.1, 0.2), hand(0.6, 0.3)
    assert match_labelled_hand([left, right], (0.1, 0.2, 0.2, 0.2)) is left
    assert match_labelled_hand([left, right], (0.55, 0.15, 0.4, 0.4)) is right
    assert match_labelled_hand([left, right], None) is right
    assert match_labelled_hand([], None) is None and match_labelled_hand([], (0.1, 0.2, 0.2, 0.2)) is None
    # Shifted by d, boxes of width 0.2 share (0.2 - d) of (0.2 + d); on both sides of the threshold.
    shift = 0.2 * (1 - MIN_IOU) / (1 + MIN_IOU)
    assert match_labelled_hand([left], (0.1 + shift - 0.01, 0.2, 0.2, 0.2)) is left
    assert match_labelled_hand([left], (0.1 + shift + 0.01, 0.2, 0.2, 0.2)) is None


def test_hand_that_fills_the_image_is_found(tmp_path: Path) -> None:
    """Images that end at the hand's outline, or within it: some need the margin, and all landmarks are right."""
    hands = []
    for rendered in rendered_hands():
        size = len(rendered.pixels)
        x, y, width, height = rendered.box
        for shrink in (0.0, 0.2):
            side = max(width, height) * (1 - shrink)
            left, top = x + (width - side) / 2, y + (height - side) / 2
            corners = [value * size for value in (left, top, left + side, top + side)]
            crop = np.asarray(Image.fromarray(rendered.pixels).crop(tuple(corners)).resize((128, 128)))
            landmarks = (rendered.landmarks - [left, top]) / side
            hands.append(replace(rendered, pixels=crop, landmarks=landmarks, box=(0.0, 0.0, 1.0, 1.0)))
    records = write_image_set(tmp_path, hands)
    found = detect_hands(tmp_path, records, min_detection_confidence=0.5)
    without_margin = [len(detect(hand.pixels)) > 0 for hand in hands]
    assert sum(without_margin) < len(hands) and found.found.all()
    errors = np.linalg.norm(found.landmarks[:, :, :2] - [hand.landmarks for hand in hands], axis=2).mean(1)
    assert errors.max() < 0.12
    # Depth has the scale of x, so that a hand keeps its proportions.
    depths = [np.ptp(hand[:, 2]) / np.ptp(hand[:, :2]) for hand in found.landmarks]
    assert max(depths) / min(depths) < 8


def test_unreadable_or_oblong_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"not an image")
    with pytest.raises(Hand1000Error, match=r"broken\.png"):
        detect_hands(tmp_path, [make_record("broken.png")], min_detection_confidence=0.5)
    Image.new("RGB", (64, 48)).save(tmp_path / "oblong.png")
    with pytest.raises(Hand1000Error, match=r"oblong\.png: 64x48"):
        read_square(tmp_path / "oblong.png")
