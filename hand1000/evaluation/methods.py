"""The paper's six methods, and the metrics and cost of each on a gesture, of one or of several trainings."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from pydantic import Field

from hand1000.config.base import FrozenSettings
from hand1000.config.comparison import METHODS, SOURCE_METHOD
from hand1000.core.errors import Hand1000Error
from hand1000.core.rng import numpy_generator
from hand1000.evaluation.image_results import ImageResult
from hand1000.evaluation.metrics import Interval, Metrics
from hand1000.evaluation.paired import Better, Estimate, estimate_rate
from hand1000.evaluation.trainings import estimate_over_gestures, estimate_over_trainings

REFERENCE, PLAIN, OURS = "sd", "sd_tuned", "hand1000"
"""The base model; plain fine-tuning, from which a method must differ to be worth its effort; the paper's method."""

HIGHER_IS_BETTER = ("gesture accuracy", "detection rate", "HAND-CONF")

WITHOUT_ORDER = ("intra-prompt distance",)
"""Columns in which neither a higher nor a lower value is better: it should be that of real images."""

MAX_MEMORIZED = 0.2
"""Memorization rate above which a method is never called the best, as its images may be copies; new ones have 0.05."""

_IMAGE_VALUES: Mapping[str, Callable[[ImageResult], float]] = {
    "gesture accuracy": lambda image: float(image.shows_target),
    "detection rate": lambda image: float(image.num_hands > 0),
    "memorization rate": lambda image: float(bool(image.memorized)),
}
"""Columns that are a mean over the images, and the value of an image."""


class Cost(FrozenSettings):
    """Time and memory of a method.

    Attributes:
        train_seconds: Training time for the gesture, with that of a model which the method takes from another one.
        image_seconds: Time per image, with that of an image which the method edits.
        peak_bytes: Peak memory.
        own_seconds: Time of what this method alone computed, all images together.
    """

    train_seconds: float = Field(ge=0)
    image_seconds: float = Field(ge=0)
    peak_bytes: int = Field(ge=0)
    own_seconds: float = Field(0.0, ge=0)


def read_cost(
    training: Sequence[Mapping[str, Any]],
    generation: Sequence[Mapping[str, Any]],
    source: Sequence[Mapping[str, Any]],
    num_images: int,
    trains: bool = True,
) -> Cost:
    """Add up the cost of a method from the provenance records of its trained parts, its images and their sources.

    Args:
        training: Records of the trained parts.
        generation: Records of the images.
        source: Records of the images that the method edits.
        num_images: Number of images.
        trains: Whether the parts were trained for this method, not for the one whose images it edits.
    """

    def seconds(records: Sequence[Mapping[str, Any]]) -> float:
        return sum(record.get("seconds", 0.0) for record in records)

    return Cost(
        train_seconds=seconds(training),
        image_seconds=seconds([*generation, *source]) / num_images,
        peak_bytes=max((record.get("peak_bytes", 0) for record in [*training, *generation, *source]), default=0),
        own_seconds=seconds(generation) + (seconds(training) if trains else 0.0),
    )


def estimate_remaining(seconds: Mapping[str, Sequence[float]], left: Mapping[str, int]) -> str:
    """How long the cells that are left may take, in words.

    Args:
        seconds: Own time of each finished cell, by method.
        left: Number of the other cells, by method.
    """
    total = sum(count * fmean(seconds[method]) for method, count in left.items() if count and seconds.get(method))
    unknown = [METHODS[method] for method, count in left.items() if count and not seconds.get(method)]
    minutes = round(total / 60)
    text = f"about {minutes // 60} h {minutes % 60:02d} min left" if minutes >= 60 else f"about {minutes} min left"
    return f"{text}, without {', '.join(unknown)}, of which none is done" if unknown else text


class MethodResult(FrozenSettings):
    """Metrics and cost of one method on one gesture.

    Attributes:
        method: Name of the method, of `METHODS`.
        seed: Seed of its training and of the noise that its images are drawn from.
    """

    method: str
    seed: int = Field(ge=0)
    metrics: Metrics
    cost: Cost


GestureResults = Mapping[str, Sequence[MethodResult]]
"""Results of one gesture by method: one for each training, in the order of the seeds.

A method without a training has a single one.
"""

MethodResults = Mapping[str, GestureResults]
"""Results by gesture, then by method. All gestures have the same methods and seeds."""


def group_results(results: Sequence[MethodResult]) -> dict[str, list[MethodResult]]:
    """The results of one gesture by method, in the paper's order, and then by seed in the order given."""
    groups = {name: [result for result in results if result.method == name] for name in METHODS}
    return {name: trainings for name, trainings in groups.items() if trainings}


def is_repeated(results: MethodResults, *names: str) -> bool:
    """Whether some method, or one of those with these names, was trained several times on a gesture."""
    return any(
        len(trainings) > 1
        for methods in results.values()
        for name, trainings in methods.items()
        if not names or name in names
    )


def other_methods(results: MethodResults, method: str) -> list[str]:
    """The names of all methods but one."""
    return [name for name in next(iter(results.values())) if name != method]


def better_value(column: str) -> Better:
    """Whether a higher or a lower value of a column is better; of the distance within a prompt, a higher one."""
    return "higher" if column in HIGHER_IS_BETTER or column in WITHOUT_ORDER else "lower"


def average_metric(trainings: Sequence[MethodResult], metric: Callable[[Metrics], float | None]) -> float | None:
    """The mean over the trainings; None if one has no value."""
    values = [metric(result.metrics) for result in trainings]
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def average_column(trainings: Sequence[MethodResult], column: str) -> float | None:
    """The mean of a column of `COLUMNS` over the trainings; None if one has no value."""

    def value(metrics: Metrics) -> float | None:
        interval = metrics.interval(column)
        return None if interval is None else interval[0]

    return average_metric(trainings, value)


def estimate_gesture(trainings: Sequence[MethodResult], column: str) -> Interval | None:
    """A column of one gesture with its 95 % interval: over the trainings, or that of the metric for a single one."""
    if len(trainings) == 1:
        return trainings[0].metrics.interval(column)
    values = _read_values(trainings, column)
    if values is None:
        return None
    estimate = estimate_over_trainings([values], numpy_generator(0, "trainings", column))
    return _make_interval(estimate, column, [values]) if estimate else None


def estimate_mean(results: MethodResults, method: str, column: str) -> Interval | None:
    """The mean of a column over the gestures with its 95 % interval over trainings and prompts.

    The value three times if there is nothing to resample: a metric of whole image sets, of one training.
    """
    values = [_read_values(methods[method], column) for methods in results.values()]
    known = [x for x in values if x is not None]
    if len(known) < len(values):
        return None
    estimate = estimate_over_trainings(known, numpy_generator(0, "trainings", column))
    mean = fmean(float(x.mean()) for x in known)
    return _make_interval(estimate, column, known) if estimate else (mean, mean, mean)


def estimate_difference(
    results: MethodResults, method: str, other: str, column: str, *, random_gestures: bool = False
) -> Estimate | None:
    """The mean difference of two methods, `method` minus `other`, with its 95 % interval.

    Trainings of the same seed are paired, and so are the images of the same prompt.

    Args:
        results: Results by gesture.
        method: Name of a method.
        other: Name of the one that is subtracted.
        column: Title of a metric, of `COLUMNS`.
        random_gestures: Whether the gestures count as a sample of all gestures: Student's interval over them, each with
            the mean of its trainings. Otherwise the mean is that of these gestures (`estimate_over_trainings`).

    Returns:
        None if a value is missing, or if there is no interval.
    """
    differences = []
    for methods in results.values():
        values = _read_values(methods[method], column), _read_values(methods[other], column)
        if values[0] is None or values[1] is None:
            return None
        _check_seeds(methods[method], methods[other])
        differences.append(values[0] - values[1])
    if random_gestures:
        return estimate_over_gestures([float(x.mean()) for x in differences])
    return estimate_over_trainings(differences, numpy_generator(0, "trainings", column))


def estimate_lead(results: MethodResults, column: str) -> Estimate | None:
    """The difference of Hand1000 and plain fine-tuning, by the best interval that the results allow.

    It is over trainings and prompts, or over the gestures if each has a single training; of one gesture with a single
    training it covers the prompts alone.
    """
    over_gestures = len(results) > 1 and not is_repeated(results, OURS, PLAIN)
    return estimate_difference(results, OURS, PLAIN, column, random_gestures=over_gestures)


def is_memorizing(trainings: Sequence[MethodResult]) -> bool:
    """Whether so many images of a method may be copies of training images that its other metrics mean little."""
    rate = average_column(trainings, "memorization rate")
    return rate is not None and rate > MAX_MEMORIZED


def trains_itself(method: str) -> bool:
    """Whether the models of a method are trained for it; they are the other one's where it edits images."""
    return method not in SOURCE_METHOD


def _read_values(trainings: Sequence[MethodResult], column: str) -> np.ndarray | None:
    """Values (T, N) of N images in T trainings, or (T, 1) of a metric of whole image sets; None if one is missing."""
    intervals = [result.metrics.interval(column) for result in trainings]
    known = [interval for interval in intervals if interval is not None]
    if len(known) < len(intervals):
        return None
    if column not in _IMAGE_VALUES:
        return np.array([[value] for value, _, _ in known])
    value_of = _IMAGE_VALUES[column]
    return np.array([[value_of(image) for image in result.metrics.images] for result in trainings])


def _check_seeds(first: Sequence[MethodResult], second: Sequence[MethodResult]) -> None:
    seeds = [[result.seed for result in trainings] for trainings in (first, second)]
    if min(map(len, seeds)) > 1 and seeds[0] != seeds[1]:
        raise Hand1000Error(f"trainings of seeds {seeds[0]} and {seeds[1]} are no pairs; compare those of equal seeds")


def _make_interval(estimate: Estimate, column: str, values: Sequence[np.ndarray]) -> Interval:
    """The interval within what the metric can be: a share is between 0 and 1.

    Where no image differs from another one, resamples do not either; then it is Wilson's of all images together.
    """
    low, high = estimate.low, estimate.high
    if column in _IMAGE_VALUES and low == high:
        wilson = estimate_rate(np.concatenate([x.ravel() for x in values]) > 0)
        low, high = wilson.low, wilson.high
    if column in _IMAGE_VALUES or column == "HAND-CONF":
        low, high = max(low, 0.0), min(high, 1.0)
    return estimate.value, low, high
