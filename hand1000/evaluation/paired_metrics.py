"""The metrics of base, champion and tuned model on the same prompts and seeds, and their paired differences."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hand1000.config.base import FrozenSettings
from hand1000.core.rng import numpy_generator
from hand1000.evaluation.colors import check_colors
from hand1000.evaluation.distances import kernel_distance
from hand1000.evaluation.features import MAX_HANDS, ImageFeatures
from hand1000.evaluation.general import GeneralMetrics
from hand1000.evaluation.metrics import Metrics
from hand1000.evaluation.pair_kernel import PairKernel
from hand1000.evaluation.paired import (
    Better,
    Estimate,
    Statistic,
    compute_mcnemar_p,
    estimate_rate,
    estimate_rate_difference,
    resample_statistics,
    summarize,
)
from hand1000.evaluation.statistics import make_intra_prompt_distance, make_kid, make_kid_to_base, make_ratio

BASE, TUNED, CHAMPION = "base", "tuned", "champion"

MIN_RESAMPLED = 10
"""Number of images, or of images with hands, below which the bootstrap's interval of a difference is far too narrow."""

# The kernels' memory grows with the square of the number of images.
_MAX_KERNEL_IMAGES = 5000


class PairedMetric(FrozenSettings):
    """One metric of all models on the same images' prompts and seeds.

    Attributes:
        name: Name of the metric; one of prompts without a gesture begins with "general ", one of prompts that name
            other gestures than the trained ones with "other-gesture ".
        gesture: Gesture whose images it is computed from; None for all images.
        better: Whether a lower or a higher value is better.
        n: Number of images per model.
        models: Value of each model, `base`, `champion` and `tuned`, that has one.
        differences: Difference tuned - base and tuned - champion, by the name of the other model.
        p_values: McNemar's p-value of each difference of rates.
        null: What a distance to the base model would be if the tuned model were equal to it: mean and central 95 %.
        note: Why a value or a difference is missing; "" if none is.
        undecided: Why the values allow no conclusion although they are there; "" if they do.
    """

    name: str
    gesture: str | None
    better: Better
    n: int
    models: dict[str, Estimate] = {}
    differences: dict[str, Estimate] = {}
    p_values: dict[str, float] = {}
    null: Estimate | None = None
    note: str = ""
    undecided: str = ""


class PairedMetrics(FrozenSettings):
    """All metrics; `paired.json` of an evaluation."""

    metrics: tuple[PairedMetric, ...]

    def find(self, name: str) -> tuple[PairedMetric, ...]:
        """The metric of this name, for all images or for each gesture; empty if the images do not allow it."""
        return tuple(metric for metric in self.metrics if metric.name == name)


GeneralByModel = Mapping[str, tuple[ImageFeatures, GeneralMetrics]]
"""Features and metrics of each model's images of prompts that do not ask for the trained gesture."""


@dataclass(frozen=True)
class EvaluatedImages:
    """The features of one model's images and the metrics that were computed from them."""

    features: ImageFeatures
    metrics: Metrics


def compare_models(
    real: ImageFeatures,
    models: Mapping[str, EvaluatedImages],
    general: GeneralByModel,
    seed: int,
    other_gestures: GeneralByModel | None = None,
) -> PairedMetrics:
    """Compare the tuned model with the base model and, if there is one, with the champion.

    The metrics that depend on the gesture are computed for each gesture of a model of several.

    Args:
        real: Features of the real images.
        models: Images of `base`, `tuned` and perhaps `champion`, of the same prompts and seeds.
        general: The same models' images of prompts without a gesture; empty if there are none.
        seed: Random seed of the bootstrap.
        other_gestures: Their images of prompts that name gestures which the tuned model was not trained on.
    """
    metrics = [*compare_hands(real, models, seed), *_compare_images(real, models, seed)]
    if general:
        metrics += _compare_general(real, general, seed)
    if other_gestures:
        metrics += _compare_other_gestures(other_gestures, seed)
    return PairedMetrics(metrics=tuple(metrics))


def compare_hands(real: ImageFeatures, models: Mapping[str, EvaluatedImages], seed: int) -> Iterator[PairedMetric]:
    """The metrics of gesture and hand of `tuned` and other models, for each gesture of a model of several."""
    gestures = np.array([result.target_gesture for result in models[TUNED].metrics.images])
    distinct = sorted(set(gestures))
    for gesture in distinct if len(distinct) > 1 else [None]:
        images = np.flatnonzero(gestures == gesture) if gesture else np.arange(len(gestures))
        yield from _compare_hands(real, models, images, gesture, seed)


@dataclass(frozen=True)
class _Subject:
    """What is compared: a metric, of the images of a gesture or of all, and the random seed of its bootstrap."""

    name: str
    better: Better
    seed: int
    gesture: str | None = None

    def compare_rates(self, values: Mapping[str, Sequence[bool]]) -> PairedMetric:
        """Compare the share of True among the images of each model."""
        arrays = {model: np.asarray(successes, bool) for model, successes in values.items()}
        return PairedMetric(
            name=self.name,
            gesture=self.gesture,
            better=self.better,
            n=len(arrays[TUNED]),
            models={model: estimate_rate(successes) for model, successes in arrays.items()},
            differences={
                model: estimate_rate_difference(arrays[TUNED], successes)
                for model, successes in arrays.items()
                if model != TUNED
            },
            p_values={
                model: compute_mcnemar_p(arrays[TUNED], successes)
                for model, successes in arrays.items()
                if model != TUNED
            },
        )

    def with_null(self, metric: PairedMetric, kernel: PairKernel) -> PairedMetric:
        """The metric, a distance to the base model, with the distance of equal models."""
        null = kernel.null_distance(numpy_generator(self.seed, "null", self.name))
        return metric.model_copy(update={"null": null})

    def compare_statistics(
        self, statistics: Mapping[str, Statistic], n: int, support: Mapping[str, int] | None = None
    ) -> PairedMetric:
        """Compare statistics of n images by the bootstrap; `support` counts the images that matter, by default all."""
        values = resample_statistics(statistics, n, numpy_generator(self.seed, "paired", self.name, self.gesture or ""))
        estimates = {model: summarize(model_values) for model, model_values in values.items()}
        counts = support or dict.fromkeys(values, n)
        differences, note = {}, ""
        for model in values:
            few = min(counts[TUNED], counts[model])
            if model == TUNED or estimates[TUNED] is None or estimates[model] is None:
                continue
            if few < MIN_RESAMPLED:
                note = f"{few} images of a model matter; a comparison needs {MIN_RESAMPLED}"
            elif difference := summarize(values[TUNED] - values[model]):
                differences[model] = difference
        return PairedMetric(
            name=self.name,
            gesture=self.gesture,
            better=self.better,
            n=n,
            models={model: estimate for model, estimate in estimates.items() if estimate},
            differences=differences,
            note=note if all(estimates.values()) else "too few images or hands",
        )


def _compare_hands(
    real: ImageFeatures, models: Mapping[str, EvaluatedImages], images: np.ndarray, gesture: str | None, seed: int
) -> Iterator[PairedMetric]:
    """The metrics of gesture and hand, of the images with these indices."""
    results = {model: [evaluated.metrics.images[index] for index in images] for model, evaluated in models.items()}
    accuracy = _Subject("gesture accuracy", "higher", seed, gesture)
    tuned = models[TUNED].metrics
    if (tuned.by_gesture[gesture] if gesture else tuned).gesture_accuracy is None:
        note = "the classifier does not know the gesture"
        yield PairedMetric(name=accuracy.name, gesture=gesture, better="higher", n=len(images), note=note)
    else:
        shown = {model: [image.shows_target for image in rows] for model, rows in results.items()}
        checks = [check for target, check in tuned.classifier_checks.items() if gesture in (None, target)]
        undecided = next((check.reason for check in checks if check.reason), "")
        yield accuracy.compare_rates(shown).model_copy(update={"undecided": undecided})
    detected = {model: [image.num_hands > 0 for image in rows] for model, rows in results.items()}
    yield _Subject("detection rate", "higher", seed, gesture).compare_rates(detected)
    support = {model: sum(hands) for model, hands in detected.items()}
    yield _compare_kid_h(real, models, images, support, _Subject("KID-H", "lower", seed, gesture))
    if all(image.num_implausible is not None for image in results[TUNED]):
        ratios = {
            model: make_ratio(
                np.array([image.num_implausible for image in rows], float),
                np.array([image.num_hands for image in rows], float),
            )
            for model, rows in results.items()
        }
        subject = _Subject("implausible hand rate", "lower", seed, gesture)
        yield subject.compare_statistics(ratios, len(images), support)


def _compare_kid_h(
    real: ImageFeatures,
    models: Mapping[str, EvaluatedImages],
    images: np.ndarray,
    support: Mapping[str, int],
    subject: _Subject,
) -> PairedMetric:
    """KID-H; the values also resample the real hands, the differences hold them fixed."""
    gesture, images = subject.gesture, images[:_MAX_KERNEL_IMAGES]
    positions = np.full(len(models[TUNED].features.file_names), -1)
    positions[images] = np.arange(len(images))
    real_gestures = np.array(real.gestures)[real.image_index]
    real_crops = real.crop_features[real_gestures == gesture] if gesture else real.crop_features
    real_crops = real_crops[:_MAX_KERNEL_IMAGES]
    statistics, values = {}, {}
    for model, evaluated in models.items():
        index = positions[evaluated.features.image_index]
        crops = evaluated.features.crop_features[index >= 0]
        statistics[model] = make_kid(real_crops, crops, index[index >= 0])
        if gesture is None and evaluated.metrics.kid_h is not None:
            values[model] = Estimate.model_validate(evaluated.metrics.kid_h.model_dump())
        elif min(len(real_crops), len(crops)) > 1:
            generator = numpy_generator(subject.seed, "paired", subject.name, gesture or "", model)
            values[model] = Estimate.model_validate(kernel_distance(real_crops, crops, generator).model_dump())
    return subject.compare_statistics(statistics, len(images), support).model_copy(update={"models": values})


def _compare_kid(real: ImageFeatures, models: Mapping[str, EvaluatedImages], seed: int) -> PairedMetric:
    """KID; the values also resample the real images, the differences hold them fixed."""
    subject = _Subject("KID", "lower", seed)
    count = min(len(models[TUNED].features.file_names), _MAX_KERNEL_IMAGES)
    statistics = {
        model: make_kid(real.features[:_MAX_KERNEL_IMAGES], evaluated.features.features[:count], np.arange(count))
        for model, evaluated in models.items()
    }
    values = {model: Estimate.model_validate(evaluated.metrics.kid.model_dump()) for model, evaluated in models.items()}
    return subject.compare_statistics(statistics, count).model_copy(update={"models": values})


def _compare_images(real: ImageFeatures, models: Mapping[str, EvaluatedImages], seed: int) -> Iterator[PairedMetric]:
    """The metrics of whole images, of all gestures together."""
    results = {model: evaluated.metrics.images for model, evaluated in models.items()}
    features = {model: evaluated.features for model, evaluated in models.items()}
    yield _compare_kid(real, models, seed)
    if results[TUNED][0].memorized is not None:
        memorized = {model: [bool(image.memorized) for image in rows] for model, rows in results.items()}
        yield _Subject("memorization rate", "lower", seed).compare_rates(memorized)
    distances = {model: make_intra_prompt_distance(fake.features, fake.prompts) for model, fake in features.items()}
    if base := distances[BASE]:
        shares = {model: _make_share(statistic, base) for model, statistic in distances.items() if statistic}
        yield _Subject("diversity", "higher", seed).compare_statistics(shares, len(results[TUNED]))
    yield from _compare_colors(_Subject("color faithfulness", "higher", seed), real, features)


def _compare_general(real: ImageFeatures, general: GeneralByModel, seed: int) -> Iterator[PairedMetric]:
    """The metrics of prompts without a gesture."""
    features = {model: fake for model, (fake, _) in general.items()}
    detected = {model: [image.num_hands > 0 for image in metrics.images] for model, (_, metrics) in general.items()}
    yield _Subject("general detection rate", "higher", seed).compare_rates(detected)
    yield from _compare_colors(_Subject("general color faithfulness", "higher", seed), real, features)
    base = features[BASE].features[:_MAX_KERNEL_IMAGES]
    distances = {
        model: make_kid_to_base(base, fake.features[:_MAX_KERNEL_IMAGES])
        for model, fake in features.items()
        if model != BASE
    }
    count = len(base)
    images = np.arange(count)
    kernel = PairKernel.of(base, images, features[TUNED].features[:count], images, count)
    subject = _Subject("general KID", "lower", seed)
    yield subject.with_null(subject.compare_statistics(distances, count), kernel)
    yield _compare_general_hands(features, min(count, _MAX_KERNEL_IMAGES // MAX_HANDS), seed)
    yield from _compare_leaks(general, _Subject("general leak rate", "lower", seed))


def _compare_general_hands(features: Mapping[str, ImageFeatures], count: int, seed: int) -> PairedMetric:
    """KID-H to the base model's hands, of the first `count` images."""
    subject = _Subject("general KID-H", "lower", seed)
    first = {model: fake.first(count) for model, fake in features.items()}
    base = first.pop(BASE)
    kernels = {
        model: PairKernel.of(base.crop_features, base.image_index, fake.crop_features, fake.image_index, count)
        for model, fake in first.items()
    }
    support = {model: len({*fake.image_index.tolist()}) for model, fake in first.items()}
    statistics = {model: kernel.distance for model, kernel in kernels.items()}
    return subject.with_null(subject.compare_statistics(statistics, count, support), kernels[TUNED])


def _compare_other_gestures(other: GeneralByModel, seed: int) -> Iterator[PairedMetric]:
    """The metrics of prompts that name gestures which the tuned model was not trained on."""
    shown = {model: [image.shows_named for image in metrics.images] for model, (_, metrics) in other.items()}
    yield _Subject("other-gesture accuracy", "higher", seed).compare_rates(shown)
    yield from _compare_leaks(other, _Subject("other-gesture leak rate", "lower", seed))


def _compare_leaks(images: GeneralByModel, subject: _Subject) -> Iterator[PairedMetric]:
    """How often a trained gesture is shown that the prompt does not name; nothing if the classifier lacks it."""
    if all(metrics.leak_rate is not None for _, metrics in images.values()):
        yield subject.compare_rates(
            {model: [image.leaks for image in metrics.images] for model, (_, metrics) in images.items()}
        )


def _compare_colors(
    subject: _Subject, real: ImageFeatures, features: Mapping[str, ImageFeatures]
) -> Iterator[PairedMetric]:
    """The share of correct colors among those that the prompts name, of all places; nothing if they name none."""
    ratios = {}
    n = len(features[TUNED].file_names)
    for model, fake in features.items():
        correct, named = np.zeros((2, n))
        for places in check_colors(fake.colors, fake.color_words, real.colors, real.color_words).values():
            for index, is_correct in places.items():
                named[index] += 1
                correct[index] += is_correct
        if not named.any():
            return
        ratios[model] = make_ratio(correct, named)
    yield subject.compare_statistics(ratios, n)


def _make_share(statistic: Statistic, base: Statistic) -> Statistic:
    def share(counts: np.ndarray) -> np.ndarray:
        reference = base(counts)
        return np.divide(statistic(counts), reference, out=np.full(len(counts), np.nan), where=reference > 0)

    return share
