"""Tables of the method comparison: each gesture, the means, and the differences between methods."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from hand1000.config.comparison import METHODS
from hand1000.core.rng import numpy_generator
from hand1000.core.tables import Bold, Table, format_number
from hand1000.evaluation.image_results import ImageResult
from hand1000.evaluation.methods import (
    HIGHER_IS_BETTER,
    OURS,
    PLAIN,
    REFERENCE,
    WITHOUT_ORDER,
    GestureResults,
    MethodResults,
    average_column,
    average_metric,
    estimate_difference,
    estimate_gesture,
    estimate_mean,
    is_memorizing,
    other_methods,
)
from hand1000.evaluation.metrics import COLUMNS, Interval, Metrics
from hand1000.evaluation.paired import paired_bootstrap

EXTRA_METRICS: Mapping[str, Callable[[Metrics], float | None]] = {
    "palm score": lambda metrics: metrics.palm_score,
    "hand presence": lambda metrics: metrics.hand_presence,
    "implausible hand rate": lambda metrics: metrics.implausible_hand_rate,
    "CLIP score": lambda metrics: metrics.clip_score,
    "wall color": lambda metrics: metrics.color_faithfulness.get("wall"),
    "skin color": lambda metrics: metrics.color_faithfulness.get("skin"),
    "sleeve color": lambda metrics: metrics.color_faithfulness.get("sleeve"),
}
"""Further metrics, by the title of their column."""


def gesture_table(results: GestureResults) -> Table:
    """One row per method: each metric with its 95 % interval, the best in bold."""
    best = {column: _best_methods(results, column) for column in COLUMNS}
    rows = [
        [
            METHODS[name],
            *(
                _emphasize(format_interval(estimate_gesture(trainings, column)), name in best[column])
                for column in COLUMNS
            ),
        ]
        for name, trainings in results.items()
    ]
    return _table(("method", *COLUMNS), rows)


def mean_table(results: MethodResults) -> Table:
    """Means over all gestures: each metric with its difference to SD, the best in bold, and the cost."""
    names = list(next(iter(results.values())))
    means = {column: _means(results, column) for column in COLUMNS}
    best = {column: _best(values, column, _memorizing(results)) for column, values in means.items()}
    rows = []
    for name in names:
        row = [METHODS[name]]
        for column, values in means.items():
            value, reference = values[name], values.get(REFERENCE)
            text = format_number(value)
            if name != REFERENCE and value is not None and reference is not None:
                text += f" ({value - reference:+.3g})"
            row.append(_emphasize(text, name in best[column]))
        costs = [result.cost for methods in results.values() for result in methods[name]]
        row += [
            f"{fmean(cost.train_seconds for cost in costs):.0f}",
            f"{fmean(cost.image_seconds for cost in costs):.2g}",
            f"{max(cost.peak_bytes for cost in costs) / 1e9:.2f}",
        ]
        rows.append(row)
    return _table(("method", *COLUMNS, "training, s", "per image, s", "peak memory, GB"), rows)


def interval_table(results: MethodResults) -> Table:
    """Means over these gestures with their 95 % intervals over trainings and prompts, the best in bold."""
    best = {column: _best(_means(results, column), column, _memorizing(results)) for column in COLUMNS}
    rows = [
        [
            METHODS[name],
            *(
                _emphasize(format_interval(estimate_mean(results, name, column)), name in best[column])
                for column in COLUMNS
            ),
        ]
        for name in next(iter(results.values()))
    ]
    return _table(("method", *COLUMNS), rows)


def difference_table(results: MethodResults, other: str = PLAIN) -> Table:
    """Each method minus `other`: the mean over these gestures with its 95 % interval over trainings and prompts."""
    rows = []
    for name in other_methods(results, other):
        row = [METHODS[name]]
        for column in COLUMNS:
            estimate = estimate_difference(results, name, other, column)
            row.append(f"{estimate.value:+.3g} ({estimate.low:+.3g} to {estimate.high:+.3g})" if estimate else "–")
        rows.append(row)
    return _table((f"minus {METHODS[other]}", *COLUMNS), rows)


def extra_metrics_table(results: MethodResults) -> Table:
    """Means over all gestures of the metrics that the paper does not report."""
    rows = [
        [
            METHODS[name],
            *(
                format_number(_mean([average_metric(methods[name], metric) for methods in results.values()]))
                for metric in EXTRA_METRICS.values()
            ),
        ]
        for name in next(iter(results.values()))
    ]
    return _table(("method", *EXTRA_METRICS), rows)


def advantage_table(results: MethodResults, method: str = OURS) -> Table:
    """Advantage of `method` over each other method: the mean over the gestures with its 95 % interval.

    The interval is Student's over the gestures, as a sample of all gestures. Positive is better; a column without an
    order has no advantage.
    """
    rows = []
    for other in other_methods(results, method):
        row = [METHODS[other]]
        for column in COLUMNS:
            estimate = estimate_difference(results, method, other, column, random_gestures=True)
            if estimate is None or column in WITHOUT_ORDER:
                row.append("–")
                continue
            sign = 1 if column in HIGHER_IS_BETTER else -1
            # Adding 0 makes a negative zero positive.
            row.append(f"{sign * estimate.value + 0.0:+.3g} ± {estimate.high - estimate.value:.2g}")
        rows.append(row)
    return _table((f"advantage of {METHODS[method]} over", *COLUMNS), rows)


def paired_table(results: MethodResults, method: str = OURS) -> Table:
    """Paired test of `method` against each other method, image by image over all gestures, for both rates.

    It is for a single training of each gesture: it does not cover the variance of training.
    """
    rates: Mapping[str, Callable[[ImageResult], float]] = {
        "gesture accuracy": lambda image: float(image.shows_target),
        "detection rate": lambda image: float(image.num_hands > 0),
    }
    rows = []
    for other in other_methods(results, method):
        row = [METHODS[other]]
        for rate in rates.values():
            first, second = (
                [rate(image) for methods in results.values() for image in methods[name][0].metrics.images]
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


def _means(results: MethodResults, column: str) -> dict[str, float | None]:
    """The mean of a column over the gestures, by method."""
    return {
        name: _mean([average_column(methods[name], column) for methods in results.values()])
        for name in next(iter(results.values()))
    }


def _memorizing(results: MethodResults) -> set[str]:
    """The methods whose images may be copies in some gesture."""
    return {name for methods in results.values() for name, trainings in methods.items() if is_memorizing(trainings)}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None


def _best_methods(results: GestureResults, column: str) -> set[str]:
    memorizing = {name for name, trainings in results.items() if is_memorizing(trainings)}
    return _best({name: average_column(trainings, column) for name, trainings in results.items()}, column, memorizing)


def _best(values: Mapping[str, float | None], column: str, memorizing: set[str]) -> set[str]:
    """The methods with the best value, alone or tied, of those that do not copy their training images."""
    known = {name: value for name, value in values.items() if value is not None and name not in memorizing}
    if not known or column in WITHOUT_ORDER:
        return set()
    best = (max if column in HIGHER_IS_BETTER else min)(known.values())
    return {name for name, value in known.items() if value == best}


def _emphasize(text: str, emphasize: bool) -> str:
    return Bold(text) if emphasize else text
