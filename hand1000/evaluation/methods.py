"""Comparison of the paper's six methods."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from pydantic import Field
from scipy.stats import t

from hand1000.config.base import FrozenSettings
from hand1000.core.rng import numpy_generator
from hand1000.core.tables import Bold, Table, format_number
from hand1000.evaluation.image_results import ImageResult
from hand1000.evaluation.metrics import COLUMNS, Interval, Metrics
from hand1000.evaluation.paired import paired_bootstrap

METHODS = {
    "sd": "SD",
    "sd_tuned": "SD fine-tuned",
    "sd_imagic": "SD + Imagic",
    "sd_tuned_imagic": "SD fine-tuned + Imagic",
    "sd_handrefiner": "SD + HandRefiner",
    "hand1000": "Hand1000",
}
"""Display names of the methods, in the paper's order."""

REFERENCE = "sd"
"""The method that differences refer to."""

SOURCE_METHOD = {"sd_imagic": "sd", "sd_tuned_imagic": "sd_tuned", "sd_handrefiner": "sd"}
"""The method whose images another method edits."""

HIGHER_IS_BETTER = ("gesture accuracy", "detection rate", "HAND-CONF")

WITHOUT_ORDER = ("intra-prompt distance",)
"""Columns in which neither a higher nor a lower value is better: it should be that of real images."""

EXTRA_METRICS: Mapping[str, Callable[[Metrics], float | None]] = {
    "palm score": lambda metrics: metrics.palm_score,
    "hand presence": lambda metrics: metrics.hand_presence,
    "implausible hand rate": lambda metrics: metrics.implausible_hand_rate,
    "CLIP score": lambda metrics: metrics.clip_score,
    "wall color": lambda metrics: metrics.color_faithfulness.get("wall"),
    "skin color": lambda metrics: metrics.color_faithfulness.get("skin"),
    "sleeve color": lambda metrics: metrics.color_faithfulness.get("sleeve"),
    "intra-prompt distance": lambda metrics: metrics.intra_prompt_distance,
    "memorization rate": lambda metrics: metrics.memorization_rate,
}
"""Metrics that the paper does not report, by the title of their column."""


class Cost(FrozenSettings):
    """Training time per gesture, time per image (with that of an image it edits) and peak memory of a method."""

    train_seconds: float = Field(ge=0)
    image_seconds: float = Field(ge=0)
    peak_bytes: int = Field(ge=0)


def read_cost(
    training: Sequence[Mapping[str, Any]],
    generation: Sequence[Mapping[str, Any]],
    source: Sequence[Mapping[str, Any]],
    num_images: int,
) -> Cost:
    """Add up the cost of a method from the provenance records of its trained parts, its images and their sources."""

    def seconds(records: Sequence[Mapping[str, Any]]) -> float:
        return sum(record.get("seconds", 0.0) for record in records)

    return Cost(
        train_seconds=seconds(training),
        image_seconds=seconds([*generation, *source]) / num_images,
        peak_bytes=max((record.get("peak_bytes", 0) for record in [*training, *generation, *source]), default=0),
    )


class MethodResult(FrozenSettings):
    """Metrics and cost of one method on one gesture."""

    metrics: Metrics
    cost: Cost


GestureResults = Mapping[str, MethodResult]
"""Results of one gesture by method."""

MethodResults = Mapping[str, GestureResults]
"""Results by gesture, then by method. All gestures have the same methods."""


def gesture_table(results: GestureResults) -> Table:
    """One row per method: each metric with its 95 % interval, the best in bold."""
    best = {column: _best_methods(results, column) for column in COLUMNS}
    rows = [
        [
            METHODS[name],
            *(_emphasize(format_interval(result.metrics.interval(column)), name in best[column]) for column in COLUMNS),
        ]
        for name, result in results.items()
    ]
    return _table(("method", *COLUMNS), rows)


def mean_table(results: MethodResults) -> Table:
    """Means over all gestures: each metric with its difference to SD, the best in bold, and the cost."""
    names = list(next(iter(results.values())))
    means = {
        column: {name: _mean([_value(methods[name], column) for methods in results.values()]) for name in names}
        for column in COLUMNS
    }
    best = {column: _best(values, column) for column, values in means.items()}
    rows = []
    for name in names:
        row = [METHODS[name]]
        for column, values in means.items():
            value, reference = values[name], values.get(REFERENCE)
            text = format_number(value)
            if name != REFERENCE and value is not None and reference is not None:
                text += f" ({value - reference:+.3g})"
            row.append(_emphasize(text, name in best[column]))
        costs = [methods[name].cost for methods in results.values()]
        row += [
            f"{fmean(cost.train_seconds for cost in costs):.0f}",
            f"{fmean(cost.image_seconds for cost in costs):.2g}",
            f"{max(cost.peak_bytes for cost in costs) / 1e9:.2f}",
        ]
        rows.append(row)
    return _table(("method", *COLUMNS, "training, s", "per image, s", "peak memory, GB"), rows)


def extra_metrics_table(results: MethodResults) -> Table:
    """Means over all gestures of the metrics that the paper does not report."""
    rows = [
        [
            METHODS[name],
            *(
                format_number(_mean([metric(methods[name].metrics) for methods in results.values()]))
                for metric in EXTRA_METRICS.values()
            ),
        ]
        for name in next(iter(results.values()))
    ]
    return _table(("method", *EXTRA_METRICS), rows)


def advantage_table(results: MethodResults, method: str = "hand1000") -> Table:
    """Advantage of `method` over each other method: the mean over the gestures with its 95 % interval.

    The interval is Student's over the gestures. Since each gesture has its own models, it covers the variance of
    training as well as that of sampling. Positive is better; a column without an order has no advantage.
    """
    rows = []
    for other in _other_methods(results, method):
        row = [METHODS[other]]
        for column in COLUMNS:
            pairs = [[_value(methods[name], column) for name in (method, other)] for methods in results.values()]
            advantages = [first - second for first, second in pairs if first is not None and second is not None]
            if len(advantages) < max(2, len(pairs)) or column in WITHOUT_ORDER:
                row.append("–")
                continue
            sign = 1 if column in HIGHER_IS_BETTER else -1
            half_width = float(t.ppf(0.975, len(advantages) - 1)) * stdev(advantages) / len(advantages) ** 0.5
            # Adding 0 makes a negative zero positive.
            row.append(f"{sign * fmean(advantages) + 0.0:+.3g} ± {half_width:.2g}")
        rows.append(row)
    return _table((f"advantage of {METHODS[method]} over", *COLUMNS), rows)


def paired_table(results: MethodResults, method: str = "hand1000") -> Table:
    """Paired test of `method` against each other method, image by image over all gestures, for both rates."""
    rates: Mapping[str, Callable[[ImageResult], float]] = {
        "gesture accuracy": lambda image: float(image.shows_target),
        "detection rate": lambda image: float(image.num_hands > 0),
    }
    rows = []
    for other in _other_methods(results, method):
        row = [METHODS[other]]
        for rate in rates.values():
            first, second = (
                [rate(image) for methods in results.values() for image in methods[name].metrics.images]
                for name in (method, other)
            )
            difference = paired_bootstrap(first, second, numpy_generator(0, "paired", other))
            row.append(
                f"{difference.mean:+.3f} ({difference.low:+.3f} to {difference.high:+.3f}), p = {difference.p:.2g}"
            )
        rows.append(row)
    return _table((f"{METHODS[method]} minus", *rates), rows)


def count_wins(results: MethodResults, method: str, column: str) -> int:
    """The number of gestures for which `method` has the best value of a metric, alone or tied."""
    return sum(method in _best_methods(methods, column) for methods in results.values())


def format_interval(interval: Interval | None) -> str:
    """A metric with its 95 % interval, such as `0.5 (0.4 to 0.6)`."""
    if interval is None:
        return "–"
    value, low, high = map(format_number, interval)
    return value if low == high else f"{value} ({low} to {high})"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    return Table(header, rows, numeric=range(1, len(header)))


def _other_methods(results: MethodResults, method: str) -> list[str]:
    return [name for name in next(iter(results.values())) if name != method]


def _value(result: MethodResult, column: str) -> float | None:
    interval = result.metrics.interval(column)
    return None if interval is None else interval[0]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None


def _best_methods(results: GestureResults, column: str) -> set[str]:
    return _best({name: _value(result, column) for name, result in results.items()}, column)


def _best(values: Mapping[str, float | None], column: str) -> set[str]:
    known = {name: value for name, value in values.items() if value is not None}
    if not known or column in WITHOUT_ORDER:
        return set()
    best = (max if column in HIGHER_IS_BETTER else min)(known.values())
    return {name for name, value in known.items() if value == best}


def _emphasize(text: str, emphasize: bool) -> str:
    return Bold(text) if emphasize else text
