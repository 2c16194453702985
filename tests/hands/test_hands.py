"""Hands: MediaPipe on rendered pictures, whose landmarks are known, the gesture feature, and the classifier."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hand1000.core.errors import Hand1000Error
from hand1000.data.imageset import ImageRecord
from hand1000.hands.classifier import CLASSES, SHIPPED, GestureClassifier
from hand1000.hands.detection import MIN_IOU, detect_hands, match_labelled_hand, read_square
from hand1000.hands.detector import Hand, HandDetector
from hand1000.hands.landmarks import Landmarks
from hand1000.hands.stage1 import (
    compute_mean_feature,
    gesture_feature,
    load_features,
    normalize_landmarks,
    save_features,
)
from tests.support.rendered_hands import Rendered, image_set, rendered_hands


@pytest.fixture
def rendered() -> tuple[Rendered, ...]:
    return rendered_hands()


def _record(name: str, bbox: tuple[float, float, float, float] | None) -> ImageRecord:
    return ImageRecord(
        file_name=name,
        text="a hand",
        caption="a hand",
        captioner="test",
        gesture="palm",
        user_id="u",
        bbox=bbox,
        source="0" * 64,
    )


def _landmarks(count: int = 6, missed: tuple[int, ...] = ()) -> Landmarks:
    generator = np.random.default_rng(3)
    found = np.array([index not in missed for index in range(count)])
    return Landmarks(
        np.where(found[:, None, None], generator.random((count, 21, 3)), 0.0).astype(np.float32),
        found,
        generator.random(count).astype(np.float32),
        generator.random(count) < 0.5,
        tuple(f"{index}.png" for index in range(count)),
    )


def _equal(a: Landmarks, b: Landmarks) -> bool:
    return a.file_names == b.file_names and all(
        np.array_equal(getattr(a, name), getattr(b, name)) for name in ("landmarks", "found", "score", "right")
    )


def test_the_hand_is_found_where_it_is_and_as_the_hand_it_is(rendered: tuple[Rendered, ...]) -> None:
    with HandDetector(0.5) as detector:
        for picture in rendered:
            (hand,) = detector.detect(picture.pixels)
            error = np.linalg.norm(hand.landmarks[:, :2] - picture.landmarks, axis=1).mean()
            assert error < 0.12 * max(picture.box[2:]), picture.gesture
            assert hand.right == picture.right, picture.gesture
            assert 0.5 <= hand.score <= 1
            (mirrored,) = detector.detect(picture.pixels[:, ::-1])
            assert mirrored.right != hand.right
        assert detector.detect(np.full((64, 64, 3), 127, np.uint8)) == []


def test_shards_of_an_image_set_give_the_bits_of_the_whole(rendered: tuple[Rendered, ...], tmp_path: Path) -> None:
    records = image_set(tmp_path, rendered)
    steps: list[tuple[int, int]] = []
    whole = detect_hands(
        tmp_path, records, min_detection_confidence=0.5, on_progress=lambda done, total, _: steps.append((done, total))
    )
    assert steps == [(index + 1, len(records)) for index in range(len(records))]
    assert whole.found.all() and whole.file_names == tuple(record.file_name for record in records)
    shards = [detect_hands(tmp_path, records[start::3], min_detection_confidence=0.5) for start in (1, 0, 2)]
    assert _equal(Landmarks.concatenate(shards), whole)
    features = [
        compute_mean_feature(part, gesture="palm", kind="normalized", max_missed=0.0)
        for part in (whole, Landmarks.concatenate(shards))
    ]
    assert features[0].mean.tobytes() == features[1].mean.tobytes()


def test_a_hand_outside_the_labelled_box_is_a_miss(rendered: tuple[Rendered, ...], tmp_path: Path) -> None:
    (record, *_) = image_set(tmp_path, rendered[:1])
    elsewhere = record.model_copy(update={"bbox": (0.0, 0.0, 0.05, 0.05)})
    unlabelled = record.model_copy(update={"bbox": None})
    found = [
        detect_hands(tmp_path, [one], min_detection_confidence=0.5).found[0] for one in (record, elsewhere, unlabelled)
    ]
    assert found == [True, False, True]


def test_of_two_hands_the_labelled_one_is_taken() -> None:
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


def test_an_unreadable_or_oblong_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(Hand1000Error, match=r"broken\.png"):
        detect_hands(tmp_path, [_record("broken.png", None)], min_detection_confidence=0.5)
    Image.new("RGB", (64, 48)).save(tmp_path / "oblong.png")
    with pytest.raises(Hand1000Error, match=r"oblong\.png: 64x48"):
        read_square(tmp_path / "oblong.png")


def test_landmarks_are_saved_and_loaded(tmp_path: Path) -> None:
    landmarks = _landmarks(missed=(2,))
    landmarks.save(tmp_path)
    assert _equal(Landmarks.load(tmp_path), landmarks)
    (tmp_path / "landmarks.json").write_text(json.dumps({"file_names": ["0.png"]}))
    with pytest.raises(Hand1000Error, match="landmarks"):
        Landmarks.load(tmp_path)
    (tmp_path / "landmarks.safetensors").write_bytes(b"broken")
    with pytest.raises(Hand1000Error, match="not valid landmarks"):
        Landmarks.load(tmp_path)


def test_one_image_in_two_shards_is_refused() -> None:
    with pytest.raises(Hand1000Error, match=r"0\.png"):
        Landmarks.concatenate([_landmarks(), _landmarks()])


def test_normalised_hands_forget_place_size_and_side_but_not_rotation() -> None:
    hands = np.random.default_rng(0).random((4, 21, 3)).astype(np.float32)
    right = np.array([True, True, False, False])
    normal = normalize_landmarks(hands, right)
    assert np.allclose(normal[:, 0], 0)
    assert np.allclose(np.linalg.norm(normal[:, [5, 9, 13, 17]], axis=2).mean(axis=1), 1, atol=1e-6)
    assert np.allclose(normalize_landmarks(hands * 0.4 + [0.3, -0.1, 0.05], right), normal, atol=1e-5)
    mirrored = hands * [-1, 1, 1] + [1, 0, 0]
    assert np.allclose(normalize_landmarks(mirrored, ~right), normal, atol=1e-5)
    upside_down = hands * [-1, -1, 1]
    assert np.allclose(normalize_landmarks(upside_down, right), normal * [-1, -1, 1], atol=1e-5)


def test_the_feature_is_the_mean_over_the_hands_that_were_found(tmp_path: Path) -> None:
    landmarks = _landmarks(missed=(1, 4))
    found = landmarks.landmarks[landmarks.found].reshape(4, 63).astype(np.float64)
    raw = compute_mean_feature(landmarks, gesture="call", kind="raw", max_missed=0.5)
    assert np.allclose(raw.mean, found.mean(0)) and np.allclose(raw.std, found.std(0), atol=1e-6)
    assert (raw.images, raw.found, raw.images_without_hand) == (6, 4, ("1.png", "4.png"))
    normal = compute_mean_feature(landmarks, gesture="call", kind="normalized", max_missed=0.5)
    assert np.allclose(normal.mean, gesture_feature(landmarks, kind="normalized").mean(0), atol=1e-6)
    assert not np.allclose(normal.mean, raw.mean)
    other = compute_mean_feature(landmarks.select(["0.png", "2.png"]), gesture="ok", kind="normalized", max_missed=0.5)
    assert np.allclose(other.mean, gesture_feature(landmarks, kind="normalized")[:2].mean(0), atol=1e-6)
    save_features(tmp_path, [normal, other])
    for one, loaded in zip((normal, other), load_features(tmp_path), strict=True):
        assert np.array_equal(loaded.mean, one.mean) and np.array_equal(loaded.std, one.std)
        assert replace(loaded, mean=0, std=0) == replace(one, mean=0, std=0)
        assert loaded.mean_tensor().shape == (63,)


def test_too_many_images_without_a_hand_stop_stage_one() -> None:
    third = _landmarks(missed=(0, 5))
    compute_mean_feature(third, gesture="call", kind="raw", max_missed=0.34)
    with pytest.raises(Hand1000Error, match=r"2 of 6.*max_missed = 0\.3 .*0\.png.*min_detection_confidence"):
        compute_mean_feature(third, gesture="call", kind="raw", max_missed=0.3)
    with pytest.raises(Hand1000Error, match="6 of 6"):
        compute_mean_feature(_landmarks(missed=tuple(range(6))), gesture="call", kind="raw", max_missed=1.0)


def test_a_damaged_feature_is_named(tmp_path: Path) -> None:
    save_features(tmp_path, [compute_mean_feature(_landmarks(), gesture="call", kind="raw", max_missed=0.5)])
    (tmp_path / "gesture.safetensors").write_bytes(b"broken")
    with pytest.raises(Hand1000Error, match=r"gesture\.safetensors.*Stage I"):
        load_features(tmp_path)


def test_the_shipped_classifier_knows_rendered_gestures(rendered: tuple[Rendered, ...]) -> None:
    classifier = GestureClassifier.from_pretrained()
    with HandDetector(0.5) as detector:
        hands = [detector.detect(picture.pixels)[0] for picture in rendered]
    landmarks, right = np.stack([hand.landmarks for hand in hands]), np.array([hand.right for hand in hands])
    labels, probabilities = classifier.predict(landmarks, right)
    assert labels == [picture.gesture for picture in rendered]
    assert probabilities.shape == (len(rendered), 19) and np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    # A thumb up that is turned over is a thumb down.
    like = [picture.gesture for picture in rendered].index("like")
    over = landmarks[like : like + 1] * [-1, -1, 1]
    assert classifier.predict(over.astype(np.float32), right[like : like + 1])[0] == ["dislike"]
    assert classifier.predict(landmarks[:0], right[:0])[0] == []
    recorded = json.loads((SHIPPED / "training.json").read_text())
    assert recorded["test"]["sharp"]["accuracy"] > 0.9 and len(classifier.sha256) == 64


def test_training_learns_and_repeats_itself(tmp_path: Path) -> None:
    from hand1000.hands.train_classifier import LabeledHands, train_classifier

    generator = np.random.default_rng(0)
    shapes = generator.random((3, 21, 3))
    kinds = np.arange(60) % 3
    landmarks = (shapes[kinds] + generator.normal(0, 0.02, (60, 21, 3))).astype(np.float32)
    labels = [("call", "palm", "ok")[kind] for kind in kinds]
    right = np.ones(60, bool)
    first, second, other = (
        train_classifier(LabeledHands(landmarks, right, labels), seed=seed, steps=30, batch_size=32)
        for seed in (1, 1, 2)
    )
    assert first.predict(landmarks, right)[0] == labels
    probabilities = [one.predict(landmarks, right)[1] for one in (first, second, other)]
    assert np.array_equal(probabilities[0], probabilities[1]) and not np.array_equal(probabilities[0], probabilities[2])
    first.save_pretrained(tmp_path)
    loaded = GestureClassifier.from_pretrained(tmp_path)
    assert loaded.classes == CLASSES and np.array_equal(loaded.predict(landmarks, right)[1], probabilities[0])
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(Hand1000Error, match="not a gesture classifier"):
        GestureClassifier.from_pretrained(tmp_path)
    with pytest.raises(Hand1000Error, match="no such file"):
        GestureClassifier.from_pretrained(tmp_path / "none")
