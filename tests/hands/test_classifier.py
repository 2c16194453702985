"""The gesture classifier, as it ships and as it is trained."""

import json
from pathlib import Path

import numpy as np
import pytest

from hand1000.core.assets import GESTURE_CLASSIFIER
from hand1000.core.errors import Hand1000Error
from hand1000.gestures import HAGRID_V1, NO_GESTURE
from hand1000.hands.classifier import CLASSES, ClassifierConfig, GestureClassifier, make_config
from hand1000.hands.classifier_training import (
    LabeledHands,
    TrainingPlan,
    calibrate,
    measure_accuracy,
    train_classifier,
)
from hand1000.hands.detector import HandDetector
from hand1000.hands.rendered_hands import RenderSetting, compress, detect_rendered_hands, keep, turn
from hand1000.hands.sampled_hands import sample_hands
from tests.support.rendered_hands import rendered_hands

PLAN = TrainingPlan(steps=80, batch_size=64)


def label_sampled(gestures: tuple[str, ...], count: int, seed: int) -> LabeledHands:
    rng = np.random.default_rng(seed)
    landmarks = np.concatenate([sample_hands(gesture, count, rng) for gesture in gestures])
    return LabeledHands(landmarks, np.ones(len(landmarks), bool), np.repeat(gestures, count).tolist())


def test_shipped_classifier_recognizes_rendered_gestures() -> None:
    classifier, rendered = GestureClassifier.from_pretrained(), rendered_hands()
    with HandDetector(0.5) as detector:
        hands = [detector.detect(image.pixels)[0] for image in rendered]
    landmarks, right = np.stack([hand.landmarks for hand in hands]), np.array([hand.right for hand in hands])
    labels, probabilities = classifier.predict(landmarks, right)
    assert labels == [image.gesture for image in rendered]
    assert probabilities.shape == (len(rendered), len(CLASSES)) and np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    # A rotated thumb up is a thumb down.
    like = [image.gesture for image in rendered].index("like")
    over = landmarks[like : like + 1] * [-1, -1, 1]
    assert classifier.predict(over.astype(np.float32), right[like : like + 1])[0] == ["dislike"]
    assert classifier.predict(landmarks[:0], right[:0])[0] == []


def test_shipped_classifier_holds_under_a_setting_that_it_never_saw() -> None:
    recorded = json.loads((GESTURE_CLASSIFIER / "training.json").read_text())
    measured = recorded["test_of_version_1"]["112 px"]
    assert measured["accuracy"] >= 0.95 and measured["accuracy_of_classes"] >= 0.95
    assert measured["calibration_error"] < 0.1 and measured["rejected_right"] <= 0.03
    assert measured["accuracy_by_gesture"]["mute"] >= 0.5
    classifier = GestureClassifier.from_pretrained().restricted_to(HAGRID_V1)
    assert recorded["reject_below"] == classifier.config.reject_below
    setting = RenderSetting("unseen", 112, {"112 px": keep})
    hands = detect_rendered_hands(setting, dict.fromkeys(HAGRID_V1, 1), seed=99)["112 px"]
    assert len(hands) >= 16 and measure_accuracy(classifier, hands)["accuracy"] >= 0.85


def test_changes_of_images_keep_their_shape_and_middle() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, :, 1] = np.linspace(0, 200, 64, dtype=np.uint8)
    image[26:38, 26:38] = 255
    for change in (turn, compress):
        for seed in range(4):
            changed = change(image, np.random.default_rng(seed))
            assert changed.shape == image.shape and changed.dtype == np.uint8
            assert changed[30:34, 30:34, 0].mean() > 100 > changed[:20, :, 0].mean()
            assert np.array_equal(changed, change(image, np.random.default_rng(seed)))
    turned = [turn(image, np.random.default_rng(seed)) for seed in range(8)]
    assert {bool(image[32, 18, 1] > image[32, 46, 1]) for image in turned} == {False, True}


def test_shipped_classifier_holds_on_wide_sampled_poses() -> None:
    measured = measure_accuracy(GestureClassifier.from_pretrained(), label_sampled(CLASSES, 40, 12345))
    assert measured["accuracy"] > 0.85 and measured["no_gesture"] > 0.7


def test_training_learns_and_is_reproducible(tmp_path: Path) -> None:
    classes = ("call", "palm", "peace", NO_GESTURE)
    hands = label_sampled(classes, 30, 0)
    first, second, other = (train_classifier(hands, make_config(classes), seed=seed, plan=PLAN) for seed in (1, 1, 2))
    test = label_sampled(classes, 50, 1)
    assert measure_accuracy(first, test)["accuracy"] > 0.85
    probabilities = [classifier.predict(test.landmarks, test.right)[1] for classifier in (first, second, other)]
    assert np.array_equal(probabilities[0], probabilities[1]) and not np.array_equal(probabilities[0], probabilities[2])
    calibrated = calibrate(first, label_sampled(classes, 50, 2))
    assert 0 < calibrated.config.reject_below < 1 and calibrated.config.temperature > 0
    calibrated.save_pretrained(tmp_path)
    loaded = GestureClassifier.from_pretrained(tmp_path)
    assert loaded.config == calibrated.config and len(loaded.sha256) == 64
    assert np.array_equal(loaded.predict(*test.pair)[1], calibrated.predict(*test.pair)[1])
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(Hand1000Error, match="cannot be loaded as a gesture classifier"):
        GestureClassifier.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"classes": ["call"], "hidden": [4], "temperature": 0}')
    with pytest.raises(Hand1000Error, match="classes"):
        GestureClassifier.from_pretrained(tmp_path)
    with pytest.raises(Hand1000Error, match="no such file"):
        GestureClassifier.from_pretrained(tmp_path / "none")


def test_an_unlikely_gesture_is_rejected() -> None:
    classifier = GestureClassifier.from_pretrained()
    hands = label_sampled(("one", "three", "four"), 40, 3)
    labels, probabilities = classifier.predict(*hands.pair)
    strict = GestureClassifier(classifier.config.model_copy(update={"reject_below": 0.9}))
    strict.network.load_state_dict(classifier.network.state_dict())
    rejected, same = strict.predict(*hands.pair)
    assert np.array_equal(same, probabilities) and 0 < rejected.count(NO_GESTURE) < len(hands)
    for name, label, likely in zip(rejected, labels, probabilities.max(axis=1), strict=True):
        assert name == (NO_GESTURE if likely < 0.9 else label)


def test_similar_gestures_take_no_hands_from_version_1() -> None:
    classes = ("one", "palm", "point", NO_GESTURE)
    classifier = GestureClassifier(ClassifierConfig(classes=classes, hidden=(4,)))
    rows = np.array([[0.35, 0.0, 0.63, 0.02], [0.01, 0.0, 0.97, 0.02], [0.9, 0.05, 0.02, 0.03]])
    restricted = classifier.restricted_to(["one"])
    assert restricted.classes == ("one", "palm", NO_GESTURE) and classifier.classes == classes
    selected = restricted._select(rows)
    assert np.allclose(selected.sum(axis=1), 1)
    assert [restricted.classes[index] for index in selected.argmax(axis=1)] == ["one", NO_GESTURE, "one"]
    # A gesture of version 2 among the targets needs all classes.
    assert classifier.restricted_to(["one", "point"]).classes == classes
