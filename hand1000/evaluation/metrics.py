"""The measures of generated pictures against real ones.

| measure | of | better |
| --- | --- | --- |
| FID, KID | whole pictures | lower |
| CMMD | the same, of CLIP's features alone | lower |
| FID-H, KID-H | one crop for each hand that was found | lower |
| HAND-CONF | the paper's: mean handedness score of the hands that were found | higher |
| detection rate | pictures with a hand, of all | higher |
| gesture accuracy | pictures with a hand that makes the gesture, of all | higher |
| palm score, hand presence | how sure MediaPipe's two networks are of a picture's hand, mean of all pictures | higher |
| implausible hands | hands whose bones and joints no real hand has, of those that were found | lower |
| CLIP score | CLIP's similarity of a picture to its prompt, times 100, at least 0 | higher |
| faithfulness | pictures with the colours that their prompts name, of those that name one | higher |
| diversity | mean distance between two pictures of one prompt | the real ones' |
| memorised | pictures nearer to a training image than 95 in 100 unseen real ones are | 0.05 |

HAND-CONF is at least about 0.5 whatever is drawn, and pictures without a hand do not count in it; that is what the
rates below it are for.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from hand1000.config.base import Fraction
from hand1000.core.errors import Hand1000Error
from hand1000.core.rng import numpy_generator
from hand1000.evaluation.anatomy import MIN_REFERENCE_HANDS, fit_anatomy
from hand1000.evaluation.colors import color_faithfulness
from hand1000.evaluation.distances import clip_distance, frechet_distance, kernel_distance
from hand1000.evaluation.extractors import FeatureExtractor
from hand1000.evaluation.features import ImageFeatures, Progress, extract_features
from hand1000.evaluation.neighbors import intra_prompt_distance, memorization_rate
from hand1000.hands.classifier import GestureClassifier

# KID's matrices grow with the square of the pictures; over 5,000 of them the estimate has long settled.
_MOST_FOR_KID = 5000


class Distance(BaseModel):
    """KID with the bounds of its 95 % interval; it may be negative."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: float
    low: float
    high: float


class ImageResult(BaseModel):
    """What was found in one generated picture.

    `asked` is the gesture that was asked for; `gesture` is what its hand makes, of several hands the one most like
    that; `probability` is that of the gesture that was asked for, 0 without a hand. The least probable are the worst.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    file_name: str
    asked: str
    hands: int = Field(ge=0)
    score: Fraction | None
    gesture: str | None
    probability: Fraction


class GestureMetrics(BaseModel):
    """What is measured on the pictures of one gesture; null where there is none of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n_real: int
    n_fake: int
    detection_rate: Fraction | None
    gesture_accuracy: Fraction | None
    real_detection_rate: Fraction | None
    real_gesture_accuracy: Fraction | None


class Metrics(BaseModel):
    """All measures of one set of generated pictures.

    `gesture` names what was asked for, several with commas; `by_gesture` holds what can be told of each by itself.
    `n_real` and `n_fake` count pictures, `hands_real` and `hands_fake` the hands found in them. `real_detection_rate`
    and `real_gesture_accuracy` are those of the real pictures: the most that the measures themselves allow for.
    `null` stands where there is nothing to measure on; `notes` says why.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

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
    implausible_hands: Fraction | None
    clip_score: float | None
    faithfulness: dict[str, Fraction]
    real_faithfulness: dict[str, Fraction]
    diversity: float | None
    memorised: Fraction | None
    by_gesture: dict[str, GestureMetrics]
    extractor: str
    extractor_sha256: str
    resizer: str
    classifier_sha256: str
    min_detection_confidence: Fraction
    notes: tuple[str, ...]
    pictures: tuple[ImageResult, ...]


def compute_metrics(
    real: Path | ImageFeatures,
    fake: Path | ImageFeatures,
    *,
    gesture: str | None = None,
    extractor: FeatureExtractor,
    classifier: GestureClassifier,
    min_detection_confidence: float,
    seed: int,
    train: np.ndarray | None = None,
    progress: Progress | None = None,
) -> Metrics:
    """Measure generated pictures against real ones.

    Args:
        real, fake: image sets, or what `extract_features` made of them: the real one is looked at only once for
            several models.
        gesture: that was asked for in all pictures; by default in each the one that its record names.
        extractor: of the features.
        classifier: of the gestures.
        min_detection_confidence: of the palm detector, 0 to 1.
        seed: of KID's intervals.
        train: features of the training images, (N, D), see `extract_image_features`; without them
            memorisation is not measured.
        progress: called with the pictures of a set done and all of them.

    Raises:
        Hand1000Error: as `extract_features`; or the two sets were looked at with different means.
    """
    look = partial(
        extract_features, extractor=extractor, min_detection_confidence=min_detection_confidence, progress=progress
    )
    real = look(real) if isinstance(real, Path) else real
    fake = look(fake) if isinstance(fake, Path) else fake
    if real.means != fake.means:
        raise Hand1000Error(f"observations made with {real.means} and {fake.means}; look at both sets the same way")
    results = classify_images(fake, gesture, classifier)
    of_real = classify_images(real, gesture, classifier)
    asked = sorted({result.asked for result in results})
    notes = [f"gesture_accuracy: the classifier does not know {one}" for one in asked if one not in classifier.classes]
    fid_h = kid_h = None
    if min(len(real.score), len(fake.score)) < 2:
        notes.append(f"fid_h, kid_h: {len(real.score)} hands in the real pictures, {len(fake.score)} in the generated")
    else:
        fid_h = frechet_distance(real.crop_features, fake.crop_features)
        kid_h = _kid(real.crop_features, fake.crop_features, seed, "hands")
    anatomy = fit_anatomy(real.landmarks)
    if anatomy is None:
        notes.append(f"implausible_hands: {len(real.score)} hands in the real images; {MIN_REFERENCE_HANDS} are needed")
    return Metrics(
        gesture=",".join(asked),
        n_real=len(real.file_names),
        n_fake=len(fake.file_names),
        hands_real=len(real.score),
        hands_fake=len(fake.score),
        fid=frechet_distance(real.features, fake.features),
        kid=_kid(real.features, fake.features, seed, "pictures"),
        cmmd=clip_distance(real.features, fake.features) if fake.extractor == "clip" else None,
        fid_h=fid_h,
        kid_h=kid_h,
        hand_conf=float(fake.score.mean()) if len(fake.score) else None,
        **_rates(of_real, results, classifier),
        palm_score=float(fake.palm_score.mean()),
        hand_presence=float(fake.presence.mean()),
        implausible_hands=anatomy.implausible(fake.landmarks) if anatomy and len(fake.landmarks) else None,
        clip_score=float(100 * fake.clip_similarity.clip(0).mean()) if len(fake.clip_similarity) else None,
        faithfulness=color_faithfulness(fake.colours, fake.words, real.colours, real.words),
        real_faithfulness=color_faithfulness(real.colours, real.words, real.colours, real.words),
        diversity=intra_prompt_distance(fake.features, fake.prompts),
        memorised=None if train is None else memorization_rate(fake.features, real.features, train),
        by_gesture={one: _of_gesture(one, of_real, results, classifier) for one in asked},
        extractor=fake.extractor,
        extractor_sha256=fake.extractor_sha256,
        resizer=fake.resizer,
        classifier_sha256=classifier.sha256,
        min_detection_confidence=fake.min_detection_confidence,
        notes=tuple(notes),
        pictures=tuple(results),
    )


def _of_gesture(
    gesture: str, real: Sequence[ImageResult], fake: Sequence[ImageResult], classifier: GestureClassifier
) -> GestureMetrics:
    real, fake = ([result for result in side if result.asked == gesture] for side in (real, fake))
    return GestureMetrics(n_real=len(real), n_fake=len(fake), **_rates(real, fake, classifier))


def _rates(real: Sequence[ImageResult], fake: Sequence[ImageResult], classifier: GestureClassifier) -> dict[str, Any]:
    """The fields of the rates, of both sides."""
    return {
        "detection_rate": _share([result.hands > 0 for result in fake]),
        "gesture_accuracy": _accuracy(fake, classifier),
        "real_detection_rate": _share([result.hands > 0 for result in real]),
        "real_gesture_accuracy": _accuracy(real, classifier),
    }


def _accuracy(results: Sequence[ImageResult], classifier: GestureClassifier) -> float | None:
    """The share of pictures that show what was asked for; None if the classifier does not know all that was."""
    if not {result.asked for result in results} <= set(classifier.classes):
        return None
    return _share([result.gesture == result.asked for result in results])


def _share(found: Sequence[bool]) -> float | None:
    return sum(found) / len(found) if found else None


def _kid(real: np.ndarray, fake: np.ndarray, seed: int, what: str) -> Distance:
    generator = numpy_generator(seed, "kid", what)

    def chosen(features: np.ndarray) -> np.ndarray:
        if len(features) <= _MOST_FOR_KID:
            return features
        return features[generator.choice(len(features), _MOST_FOR_KID, replace=False)]

    estimate = kernel_distance(chosen(real), chosen(fake), generator)
    return Distance(value=estimate.value, low=estimate.low, high=estimate.high)


def classify_images(observed: ImageFeatures, gesture: str | None, classifier: GestureClassifier) -> list[ImageResult]:
    """The result of each picture, measured by `gesture` or, without one, by its own."""
    labels, probabilities = classifier.predict(observed.landmarks, observed.right)
    column = {name: index for index, name in enumerate(classifier.classes)}
    results = []
    for row, (name, own) in enumerate(zip(observed.file_names, observed.gestures, strict=True)):
        asked = gesture or own
        likely = {
            hand: float(probabilities[hand, column[asked]]) if asked in column else 0.0
            for hand in np.flatnonzero(observed.picture == row).tolist()
        }
        best = max(likely, key=lambda hand: (likely[hand], observed.score[hand]), default=None)
        results.append(
            ImageResult(
                file_name=name,
                asked=asked,
                hands=len(likely),
                score=None if best is None else float(observed.score[best]),
                gesture=None if best is None else labels[best],
                probability=0.0 if best is None else likely[best],
            )
        )
    return results
