"""Sensitivity of every metric to images that are corrupted in a known way."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
from PIL import Image, ImageFilter

from hand1000.data.imageset import ImageRecord, write_metadata
from hand1000.data.render.rendered_image import RenderedImage
from hand1000.evaluation.anatomy import compute_hand_shapes, fit_anatomy
from hand1000.evaluation.extractors import SmallExtractor
from hand1000.evaluation.features import ImageFeatures, extract_features, extract_image_features
from hand1000.evaluation.metrics import Metrics, compute_metrics
from hand1000.hands.classifier import GestureClassifier
from tests.support.malformed_hands import (
    add_second_pinky,
    change_finger_lengths,
    normal_hand,
    remove_ring_finger,
    render_malformed_hands,
)

REAL, GENERATED = range(60), range(100, 130)
CONFIDENCE = 0.5


def write_images(rendered: Sequence[RenderedImage], change: Callable[[int, np.ndarray], np.ndarray]) -> Path:
    """An image set of `rendered`, each changed."""
    folder = Path(mkdtemp(prefix="hand1000-test-"))
    records = []
    for index, image in enumerate(rendered):
        name = f"{index:03d}.png"
        Image.fromarray(change(index, image.pixels)).save(folder / name)
        words = image.words
        records.append(
            ImageRecord(
                file_name=name,
                text=image.caption,
                caption=image.caption,
                captioner="dataset",
                gesture="palm",
                user_id=str(index),
                source="0" * 64,
                attributes={"wall": words.wall, "skin": words.skin, "sleeve": words.sleeve},
            )
        )
    write_metadata(folder, records)
    return folder


def unchanged(_: int, pixels: np.ndarray) -> np.ndarray:
    return pixels


def blur(_: int, pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(1.2)))


def add_noise(index: int, pixels: np.ndarray) -> np.ndarray:
    return np.clip(pixels + np.random.default_rng(index).normal(0, 10, pixels.shape), 0, 255).astype(np.uint8)


def remove_half_of_the_hands(index: int, pixels: np.ndarray) -> np.ndarray:
    return pixels if index % 2 else np.broadcast_to(pixels[:1, :1], pixels.shape).copy()


def swap_colors(_: int, pixels: np.ndarray) -> np.ndarray:
    return pixels[..., ::-1].copy()


@cache
def features_of(deform: Callable, change: Callable, numbers: range = GENERATED) -> ImageFeatures:
    """Features of rendered images; each kind is rendered and extracted once."""
    folder = write_images(render_malformed_hands(deform, numbers), change)
    return extract_features(folder, extractor=SmallExtractor.from_pretrained(), min_detection_confidence=CONFIDENCE)


@cache
def metrics_of(deform: Callable = normal_hand, change: Callable = unchanged) -> Metrics:
    """Metrics against the hands of sixty other people."""
    return compute(features_of(deform, change))


def compute(fake: ImageFeatures, train_features: np.ndarray | None = None) -> Metrics:
    return compute_metrics(
        features_of(normal_hand, unchanged, REAL),
        fake,
        classifier=GestureClassifier.from_pretrained(),
        seed=0,
        train_features=train_features,
    )


@pytest.mark.parametrize("change", [blur, add_noise])
def test_blur_and_noise_worsen_distances_and_scores(change: Callable) -> None:
    clean, corrupted = metrics_of(), metrics_of(change=change)
    assert corrupted.fid > 1.2 * clean.fid and corrupted.kid.value > clean.kid.value + 0.1
    assert corrupted.fid_h > 1.2 * clean.fid_h and corrupted.kid_h.value > clean.kid_h.high
    assert corrupted.detection_rate <= clean.detection_rate and corrupted.gesture_accuracy < clean.gesture_accuracy
    assert corrupted.palm_score < clean.palm_score and corrupted.hand_presence < clean.hand_presence


def test_missing_hands_worsen_all_metrics_but_the_papers() -> None:
    clean, corrupted = metrics_of(), metrics_of(change=remove_half_of_the_hands)
    for name in ("detection_rate", "gesture_accuracy", "palm_score", "hand_presence"):
        assert getattr(corrupted, name) == pytest.approx(getattr(clean, name) / 2, abs=0.08), name
    assert corrupted.fid > 2 * clean.fid
    assert corrupted.hand_conf == pytest.approx(clean.hand_conf, abs=0.02)


@pytest.mark.parametrize("deform", [remove_ring_finger, add_second_pinky, change_finger_lengths])
def test_malformed_hands_are_farther_from_real_ones(deform: Callable) -> None:
    clean, corrupted = metrics_of(), metrics_of(deform)
    assert corrupted.fid_h > 1.2 * clean.fid_h and corrupted.kid_h.value > clean.kid_h.high
    anatomy = fit_anatomy(features_of(normal_hand, unchanged, REAL).landmarks)
    apart = [
        np.median(anatomy.distances(compute_hand_shapes(features_of(kind, unchanged).landmarks)))
        for kind in (normal_hand, deform)
    ]
    assert apart[1] > 1.5 * apart[0]
    # MediaPipe always returns five fingers: a sixth does not change their bones, but is near the limit.
    assert corrupted.implausible_hand_rate >= clean.implausible_hand_rate
    if deform is not add_second_pinky:
        assert corrupted.implausible_hand_rate > 0.7 > 0.2 > clean.implausible_hand_rate


def test_swapped_colors_are_not_faithful() -> None:
    clean, corrupted = metrics_of(), metrics_of(change=swap_colors)
    assert clean.color_faithfulness["wall"] > 0.85 and clean.real_color_faithfulness["wall"] > 0.9
    assert corrupted.color_faithfulness["wall"] < 0.6 * clean.color_faithfulness["wall"]
    assert corrupted.color_faithfulness["skin"] < 0.6 * clean.color_faithfulness["skin"]
    # What a prompt does not say cannot be wrong.
    silent = replace(features_of(normal_hand, unchanged), color_words=(("", "", ""),) * len(GENERATED))
    assert not compute(silent).color_faithfulness


def test_a_generator_that_repeats_its_training_images_is_seen() -> None:
    seen = features_of(normal_hand, unchanged)
    folder = write_images(render_malformed_hands(normal_hand, GENERATED), unchanged)
    features = extract_image_features(folder, SmallExtractor.from_pretrained())
    assert np.allclose(features, seen.features, atol=1e-4)
    unseen = features_of(add_second_pinky, unchanged, REAL).features
    assert compute(seen, features).memorization_rate == 1 and compute(seen, unseen).memorization_rate < 0.3


def test_the_findings_of_the_images_agree_with_the_rates() -> None:
    fake = features_of(change_finger_lengths, swap_colors)
    unseen = features_of(add_second_pinky, unchanged, REAL).features
    train = np.concatenate([unseen, fake.features[3:8]])
    metrics = compute(fake, train)
    images, num_hands = metrics.images, metrics.hands_fake
    assert sum(image.num_implausible for image in images) / num_hands == metrics.implausible_hand_rate
    assert np.mean([image.memorized for image in images]) == metrics.memorization_rate
    assert [image.nearest_train for image in images[3:8]] == list(range(len(unseen), len(train)))
    assert all(image.memorized and image.nearest_distance < 1e-3 for image in images[3:8])
    wrong = {place: np.mean([place in image.wrong_colors for image in images]) for place in metrics.color_faithfulness}
    assert wrong == pytest.approx({place: 1 - share for place, share in metrics.color_faithfulness.items()})
    image = next(image for image in images if image.num_hands)
    assert np.allclose(
        image.landmarks[0], fake.landmarks[list(fake.image_index).index(images.index(image))][:, :2], atol=1e-4
    )
    assert image.predicted_probability >= image.target_probability


def test_an_image_without_a_hand_has_no_landmarks() -> None:
    images = metrics_of(change=remove_half_of_the_hands).images
    missing = [image for image in images if not image.num_hands]
    assert missing and all(image.landmarks == () and image.predicted_probability is None for image in missing)
    assert all(image.num_implausible == 0 and image.nearest_train is None for image in missing)
