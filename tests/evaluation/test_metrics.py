"""Metrics of generated images: rates, per-gesture rates and missing values."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hand1000.core.errors import Hand1000Error
from hand1000.evaluation.distances import frechet_distance, kernel_distance
from hand1000.evaluation.metrics import Metrics
from tests.support.evaluation import blank, compute, extract
from tests.support.rendered_hands import rendered_hands, write_image_set


def test_images_without_a_hand_count_as_wrong(real, fake) -> None:
    metrics = compute(real, fake)
    assert (metrics.n_real, metrics.n_fake, metrics.hands_real, metrics.hands_fake) == (5, 4, 5, 3)
    assert (metrics.detection_rate, metrics.gesture_accuracy) == (0.75, 0.5)
    assert (metrics.real_detection_rate, metrics.real_gesture_accuracy) == (1.0, 0.2)
    assert metrics.hand_conf == pytest.approx(fake.handedness_score.mean())
    assert metrics.implausible_hand_rate is None and "5 hands in the real images" in metrics.notes[0]
    assert [image.predicted_gesture for image in metrics.images] == ["palm", "call", "call", None]
    assert [image.num_hands for image in metrics.images] == [1, 1, 1, 0]
    probabilities = [image.target_probability for image in metrics.images]
    assert probabilities[1] > 0.5 > probabilities[0] > probabilities[3] == 0
    assert metrics.fid == pytest.approx(frechet_distance(real.features, fake.features))
    kid = kernel_distance(real.features, fake.features, np.random.default_rng(0), resamples=2)
    assert metrics.kid.value == pytest.approx(kid.value)
    assert metrics.fid_h == pytest.approx(frechet_distance(real.crop_features, fake.crop_features))
    assert metrics.kid_h is not None and metrics.kid.low <= metrics.kid.value <= metrics.kid.high
    assert Metrics.model_validate_json(metrics.model_dump_json()) == metrics


def test_each_image_is_compared_with_its_own_gesture(real, fake) -> None:
    metrics = compute(real, fake, None)
    assert metrics.gesture == "call,palm"
    assert [image.target_gesture for image in metrics.images] == ["palm", "call", "call", "palm"]
    assert (metrics.detection_rate, metrics.gesture_accuracy, metrics.real_gesture_accuracy) == (0.75, 0.75, 1.0)
    call, palm = (metrics.by_gesture[gesture] for gesture in ("call", "palm"))
    assert (call.n_fake, call.gesture_accuracy, call.detection_rate, call.n_real) == (2, 1.0, 1.0, 1)
    assert (palm.n_fake, palm.gesture_accuracy, palm.detection_rate, palm.real_gesture_accuracy) == (2, 0.5, 0.5, 1.0)
    # One gesture for all is what its measures are without a division.
    alone = compute(real, fake)
    assert list(alone.by_gesture) == ["call"] and alone.by_gesture["call"].gesture_accuracy == alone.gesture_accuracy
    # No real image shows this gesture, and the classifier does not know it.
    unknown = compute(real, replace(fake, gestures=("palm", "wave", "call", "palm")), None)
    assert unknown.gesture_accuracy is None
    assert unknown.notes[0] == "gesture_accuracy: the classifier does not know wave"
    assert unknown.by_gesture["wave"].n_real == 0 and unknown.by_gesture["wave"].real_detection_rate is None
    assert unknown.by_gesture["palm"].gesture_accuracy == 0.5


def test_a_model_that_draws_no_hand_has_metrics(real, fake, tmp_path: Path) -> None:
    hand = rendered_hands()[0]
    write_image_set(tmp_path, [blank(hand), replace(blank(hand), pixels=hand.pixels // 8 + 100)][:1] * 2)
    metrics = compute(real, extract(tmp_path))
    assert (metrics.detection_rate, metrics.gesture_accuracy, metrics.hand_conf) == (0.0, 0.0, None)
    assert metrics.fid_h is metrics.kid_h is None and "0 in the generated" in metrics.notes[0]
    unknown = compute(real, fake, "wave")
    assert unknown.gesture_accuracy is None and "does not know wave" in unknown.notes[0]
    write_image_set(tmp_path / "one", [hand])
    with pytest.raises(Hand1000Error, match="1 images"):
        extract(tmp_path / "one")
