"""The gesture classifier, as it ships and as it is trained."""

import json
from pathlib import Path

import numpy as np
import pytest

from hand1000.core.assets import GESTURE_CLASSIFIER
from hand1000.core.errors import Hand1000Error
from hand1000.hands.classifier import CLASSES, GestureClassifier
from hand1000.hands.detector import HandDetector
from hand1000.hands.train_classifier import LabeledHands, train_classifier
from tests.support.rendered_hands import rendered_hands


def test_shipped_classifier_recognizes_rendered_gestures() -> None:
    classifier, rendered = GestureClassifier.from_pretrained(), rendered_hands()
    with HandDetector(0.5) as detector:
        hands = [detector.detect(image.pixels)[0] for image in rendered]
    landmarks, right = np.stack([hand.landmarks for hand in hands]), np.array([hand.right for hand in hands])
    labels, probabilities = classifier.predict(landmarks, right)
    assert labels == [image.gesture for image in rendered]
    assert probabilities.shape == (len(rendered), 19) and np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    # A rotated thumb up is a thumb down.
    like = [image.gesture for image in rendered].index("like")
    over = landmarks[like : like + 1] * [-1, -1, 1]
    assert classifier.predict(over.astype(np.float32), right[like : like + 1])[0] == ["dislike"]
    assert classifier.predict(landmarks[:0], right[:0])[0] == []
    recorded = json.loads((GESTURE_CLASSIFIER / "training.json").read_text())
    assert recorded["test"]["sharp"]["accuracy"] > 0.9 and len(classifier.sha256) == 64


def test_training_learns_and_is_reproducible(tmp_path: Path) -> None:
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
    probabilities = [classifier.predict(landmarks, right)[1] for classifier in (first, second, other)]
    assert np.array_equal(probabilities[0], probabilities[1]) and not np.array_equal(probabilities[0], probabilities[2])
    first.save_pretrained(tmp_path)
    loaded = GestureClassifier.from_pretrained(tmp_path)
    assert loaded.classes == CLASSES and np.array_equal(loaded.predict(landmarks, right)[1], probabilities[0])
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(Hand1000Error, match="cannot be loaded as a gesture classifier"):
        GestureClassifier.from_pretrained(tmp_path)
    with pytest.raises(Hand1000Error, match="no such file"):
        GestureClassifier.from_pretrained(tmp_path / "none")
