"""Metrics of generated images compared with real ones.

| metric | definition | better |
| --- | --- | --- |
| FID, KID | feature distances of whole images | lower |
| CMMD | the same with CLIP features only | lower |
| FID-H, KID-H | feature distances of hand crops | lower |
| HAND-CONF | the paper's metric: mean handedness score of the detected hands | higher |
| detection rate | share of images with a detected hand | higher |
| gesture accuracy | share of images with a hand that makes the gesture | higher |
| palm score, hand presence | mean confidences of MediaPipe's two networks, 0 for an image without a hand | higher |
| implausible hand rate | share of the detected hands with a shape unlike real hands | lower |
| CLIP score | cosine similarity of image and prompt, clipped at 0, times 100 | higher |
| color faithfulness | share of images with the colors that their prompts name | higher |
| intra-prompt distance | mean feature distance of two images of one prompt | like real images |
| memorization rate | share of images nearer to a training image than 95 % of unseen real images are | 0.05 |

HAND-CONF is at least about 0.5 for any image and ignores images without a hand. The detection rate and the gesture
accuracy do not have this weakness.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest

from hand1000.config.base import Fraction, FrozenSettings
from hand1000.core.errors import Hand1000Error
from hand1000.core.rng import numpy_generator
from hand1000.evaluation.anatomy import MIN_REFERENCE_HANDS, fit_anatomy
from hand1000.evaluation.classifier_check import ClassifierCheck, check_classifier
from hand1000.evaluation.colors import color_faithfulness
from hand1000.evaluation.distances import Distance, clip_distance, frechet_distance, kernel_distance
from hand1000.evaluation.features import ImageFeatures
from hand1000.evaluation.image_results import ImageResult, check_images, classify_images
from hand1000.evaluation.neighbors import intra_prompt_distance
from hand1000.hands.classifier import GestureClassifier, hand_class

COLUMNS = {
    "gesture accuracy": "gesture_accuracy",
    "detection rate": "detection_rate",
    "HAND-CONF": "hand_conf",
    "FID-H": "fid_h",
    "KID-H": "kid_h",
    "FID": "fid",
    "KID": "kid",
    "intra-prompt distance": "intra_prompt_distance",
    "memorization rate": "memorization_rate",
}
"""Fields of `Metrics` that tables of several models show, by the title of their column."""

# KID's memory grows with the square of the number of images, and its estimate changes little beyond this number.
_MAX_KID_IMAGES = 5000

Interval = tuple[float, float, float]
"""A value and the bounds of its 95 % interval; the value three times if the metric has no interval."""


class GestureMetrics(FrozenSettings):
    """Metrics of the images of one gesture; None if there are no such images."""

    n_real: int
    n_fake: int
    detection_rate: Fraction | None
    gesture_accuracy: Fraction | None
    real_detection_rate: Fraction | None
    real_gesture_accuracy: Fraction | None


class Metrics(FrozenSettings):
    """All metrics of one set of generated images; None where a metric cannot be computed, and `notes` says why.

    Attributes:
        gesture: Target gestures, separated by commas.
        n_real: Number of real images.
        n_fake: Number of generated images.
        hands_real: Number of hands in the real images.
        hands_fake: Number of hands in the generated images.
        real_detection_rate: Detection rate of the real images, the upper bound of this metric.
        real_gesture_accuracy: Gesture accuracy of the real images, the upper bound of this metric.
        by_gesture: Metrics of each target gesture.
        classifier_checks: The gesture classifier's accuracy on the real images of each target gesture.
        images: Classification of each generated image.
    """

    gesture: str
    n_real: int
    n_fake: int
    hands_real: int
    hands_fake: int
    fid: float
    kid: Distance
    cmmd: float | None
    fid_h: float | None
    kid_h: Distance | None
    hand_conf: Fraction | None
    detection_rate: Fraction
    gesture_accuracy: Fraction | None
    real_detection_rate: Fraction
    real_gesture_accuracy: Fraction | None
    palm_score: Fraction
    hand_presence: Fraction
    implausible_hand_rate: Fraction | None
    clip_score: float | None
    color_faithfulness: dict[str, Fraction]
    real_color_faithfulness: dict[str, Fraction]
    intra_prompt_distance: float | None
    memorization_rate: Fraction | None
    by_gesture: dict[str, GestureMetrics]
    extractor: str
    extractor_sha256: str
    resizer: str
    classifier_sha256: str
    min_detection_confidence: Fraction
    notes: tuple[str, ...]
    images: tuple[ImageResult, ...]
    classifier_checks: dict[str, ClassifierCheck] = {}

    @property
    def classifier_summary(self) -> str:
        """The gesture classifier, and its accuracy on the real test images of each gesture, in one line."""
        checks = "; ".join(
            f"{gesture}: {check.reason or check.summary}" for gesture, check in self.classifier_checks.items()
        )
        return f"Gesture classifier: sha256 {self.classifier_sha256}; {checks or 'not checked on real images'}."

    def interval(self, column: str) -> Interval | None:
        """A metric of `COLUMNS` with its 95 % interval: Wilson's for a rate, the bootstrap's for KID."""
        value = getattr(self, COLUMNS[column])
        if value is None:
            return None
        if COLUMNS[column] in ("gesture_accuracy", "detection_rate", "memorization_rate"):
            bounds = binomtest(round(value * self.n_fake), self.n_fake).proportion_ci(method="wilson")
            return value, float(bounds.low), float(bounds.high)
        return (value, value, value) if isinstance(value, float) else (value.value, value.low, value.high)


def compute_metrics(
    real: ImageFeatures,
    fake: ImageFeatures,
    *,
    classifier: GestureClassifier,
    seed: int,
    gesture: str | None = None,
    train_features: np.ndarray | None = None,
    min_classifier_accuracy: float = 0.0,
) -> Metrics:
    """Compute all metrics of generated images.

    Args:
        real: Features of the real images.
        fake: Features of the generated images.
        classifier: Gesture classifier.
        seed: Random seed of KID's bootstrap.
        gesture: Target gesture of all images; by default each image has the one in its record.
        train_features: Features of the training images, (N, D); without them the memorization rate is None.
        min_classifier_accuracy: Accuracy of the classifier on the real images of a gesture, below which the metrics
            say that they conclude nothing about it.

    Raises:
        Hand1000Error: The features were extracted in different ways.
    """
    if real.provenance != fake.provenance:
        raise Hand1000Error(
            f"features of {real.provenance} and of {fake.provenance} cannot be compared; extract both the same way"
        )
    classifier = classifier.restricted_to([gesture] if gesture else fake.gestures)
    anatomy = fit_anatomy(real.landmarks)
    results = check_images(classify_images(fake, gesture, classifier), real, fake, anatomy, train_features)
    real_results = classify_images(real, gesture, classifier)
    targets = sorted({result.target_gesture for result in results})
    notes = [
        f"gesture_accuracy: the classifier does not know {target}"
        for target in targets
        if hand_class(target) not in classifier.classes
    ]
    known = [target for target in targets if hand_class(target) in classifier.classes]
    checks = check_classifier(real_results, known, min_classifier_accuracy)
    notes += [f"gesture_accuracy, {target}: {check.reason}" for target, check in checks.items() if check.reason]
    fid_h = kid_h = None
    num_real_hands, num_fake_hands = len(real.landmarks), len(fake.landmarks)
    if min(num_real_hands, num_fake_hands) < 2:
        notes.append(f"fid_h, kid_h: {num_real_hands} hands in the real images, {num_fake_hands} in the generated ones")
    else:
        fid_h = frechet_distance(real.crop_features, fake.crop_features)
        kid_h = _compute_kid(real.crop_features, fake.crop_features, seed, "hands")
    if anatomy is None:
        notes.append(
            f"implausible_hand_rate: {num_real_hands} hands in the real images; {MIN_REFERENCE_HANDS} are required"
        )
    return Metrics(
        gesture=",".join(targets),
        n_real=len(real.file_names),
        n_fake=len(fake.file_names),
        hands_real=num_real_hands,
        hands_fake=num_fake_hands,
        fid=frechet_distance(real.features, fake.features),
        kid=_compute_kid(real.features, fake.features, seed, "pictures"),  # codespell:ignore
        cmmd=clip_distance(real.features, fake.features) if fake.extractor == "clip" else None,
        fid_h=fid_h,
        kid_h=kid_h,
        hand_conf=float(fake.handedness_score.mean()) if num_fake_hands else None,
        **_compute_rates(real_results, results, classifier),
        palm_score=float(fake.palm_score.mean()),
        hand_presence=float(fake.hand_presence.mean()),
        implausible_hand_rate=(
            sum(result.num_implausible or 0 for result in results) / num_fake_hands
            if anatomy and num_fake_hands
            else None
        ),
        clip_score=float(100 * fake.clip_similarity.clip(0).mean()) if len(fake.clip_similarity) else None,
        color_faithfulness=color_faithfulness(fake.colors, fake.color_words, real.colors, real.color_words),
        real_color_faithfulness=color_faithfulness(real.colors, real.color_words, real.colors, real.color_words),
        intra_prompt_distance=intra_prompt_distance(fake.features, fake.prompts),
        memorization_rate=None if train_features is None else _share([bool(result.memorized) for result in results]),
        by_gesture={target: _compute_gesture_metrics(target, real_results, results, classifier) for target in targets},
        extractor=fake.extractor,
        extractor_sha256=fake.extractor_sha256,
        resizer=fake.resizer,
        classifier_sha256=classifier.sha256,
        min_detection_confidence=fake.min_detection_confidence,
        notes=tuple(notes),
        images=tuple(results),
        classifier_checks=checks,
    )


def _compute_gesture_metrics(
    gesture: str, real: Sequence[ImageResult], fake: Sequence[ImageResult], classifier: GestureClassifier
) -> GestureMetrics:
    real, fake = ([result for result in results if result.target_gesture == gesture] for results in (real, fake))
    return GestureMetrics(n_real=len(real), n_fake=len(fake), **_compute_rates(real, fake, classifier))


def _compute_rates(
    real: Sequence[ImageResult], fake: Sequence[ImageResult], classifier: GestureClassifier
) -> dict[str, Any]:
    """The rates of real and generated images, by the names of their fields."""
    return {
        "detection_rate": _share([result.num_hands > 0 for result in fake]),
        "gesture_accuracy": _gesture_accuracy(fake, classifier),
        "real_detection_rate": _share([result.num_hands > 0 for result in real]),
        "real_gesture_accuracy": _gesture_accuracy(real, classifier),
    }


def _gesture_accuracy(results: Sequence[ImageResult], classifier: GestureClassifier) -> float | None:
    """The share of images that show their target gesture; None if the classifier does not know all targets."""
    if not {hand_class(result.target_gesture) for result in results} <= set(classifier.classes):
        return None
    return _share([result.shows_target for result in results])


def _share(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None


def _compute_kid(real: np.ndarray, fake: np.ndarray, seed: int, key: str) -> Distance:
    """KID with the bootstrap of the random stream `key`, which must stay as it is to reproduce earlier intervals."""
    generator = numpy_generator(seed, "kid", key)

    def subsample(features: np.ndarray) -> np.ndarray:
        if len(features) <= _MAX_KID_IMAGES:
            return features
        return features[generator.choice(len(features), _MAX_KID_IMAGES, replace=False)]

    return kernel_distance(subsample(real), subsample(fake), generator)
