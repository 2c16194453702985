"""The six systems of the paper's comparison, side by side."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from pydantic import Field
from scipy.stats import t

from hand1000.config.base import FrozenSettings
from hand1000.core.rng import numpy_generator
from hand1000.core.tables import markdown_table
from hand1000.evaluation.metric_table import format_number
from hand1000.evaluation.metrics import ImageResult, Metrics
from hand1000.evaluation.paired import paired_bootstrap
from hand1000.reports.sweep import COLUMNS, interval

METHODS = {
    "sd": "SD",
    "sd_tuned": "SD fine-tuned",
    "sd_imagic": "SD + Imagic",
    "sd_tuned_imagic": "SD fine-tuned + Imagic",
    "sd_handrefiner": "SD + HandRefiner",
    "hand1000": "Hand1000",
}
"""What people call them, in the paper's order."""

REFERENCE = "sd"
"""The system that the others' differences are taken to."""

SOURCE_METHOD = {"sd_imagic": "sd", "sd_tuned_imagic": "sd_tuned", "sd_handrefiner": "sd"}
"""Whose pictures a system works on, which have to be drawn first."""

HIGHER_IS_BETTER = ("gesture accuracy", "detection rate", "HAND-CONF")


class Cost(FrozenSettings):
    """What a system took, on the machine that it ran on.

    `train_seconds` is once for a gesture; `image_seconds` for a picture, those of the system under it included;
    `peak_bytes` is the most at any time.
    """

    train_seconds: float = Field(ge=0)
    image_seconds: float = Field(ge=0)
    peak_bytes: int = Field(ge=0)


def read_cost(
    trained: Sequence[Mapping[str, Any]], drawn: Sequence[Mapping[str, Any]], under: Sequence[Mapping[str, Any]], n: int
) -> Cost:
    """The cost of a system by the records of what it is made of (`ArtifactStore.making`).

    Args:
        trained: of what had to be trained.
        drawn: of its `n` pictures.
        under: of the pictures that it worked on, if it did.
        n: how many pictures.
    """

    def seconds(makings: Sequence[Mapping[str, Any]]) -> float:
        return sum(making.get("seconds", 0.0) for making in makings)

    return Cost(
        train_seconds=seconds(trained),
        image_seconds=seconds([*drawn, *under]) / n,
        peak_bytes=max((making.get("peak_bytes", 0) for making in [*trained, *drawn, *under]), default=0),
    )


class MethodResult(FrozenSettings):
    """One system on one gesture."""

    metrics: Metrics
    cost: Cost


MethodResults = Mapping[str, Mapping[str, MethodResult]]
"""By gesture, then by system; each gesture has the same systems."""


def gesture_table(cells: Mapping[str, MethodResult]) -> str:
    """One gesture in Markdown: a row a system, each measure with its 95 % interval, the best in bold."""
    best = {column: _best({name: _value(cell, column) for name, cell in cells.items()}, column) for column in COLUMNS}
    rows = []
    for name, cell in cells.items():
        row = [METHODS[name]]
        for column in COLUMNS:
            found = interval(cell.metrics, column)
            if found is None:
                row.append("–")
                continue
            value, low, high = found
            text = _bold(format_number(value), name in best[column])
            row.append(text if low == high else f"{text} ({format_number(low)} to {format_number(high)})")
        rows.append(row)
    return markdown_table(["system", *COLUMNS], rows, numbers=range(1, len(COLUMNS) + 1))


def mean_table(cells: MethodResults) -> str:
    """All gestures' mean in Markdown: each measure with its difference to SD's, the best in bold; then the cost."""
    names = list(next(iter(cells.values())))
    means = {
        column: {name: _mean([_value(of_gesture[name], column) for of_gesture in cells.values()]) for name in names}
        for column in COLUMNS
    }
    best = {column: _best(values, column) for column, values in means.items()}
    rows = []
    for name in names:
        row = [METHODS[name]]
        for column, values in means.items():
            value, reference = values[name], values.get(REFERENCE)
            text = _bold(format_number(value), name in best[column])
            if name != REFERENCE and value is not None and reference is not None:
                text += f" ({value - reference:+.3g})"
            row.append(text)
        costs = [of_gesture[name].cost for of_gesture in cells.values()]
        row += [
            f"{fmean(cost.train_seconds for cost in costs):.0f}",
            f"{fmean(cost.image_seconds for cost in costs):.2g}",
            f"{max(cost.peak_bytes for cost in costs) / 1e9:.2f}",
        ]
        rows.append(row)
    head = ["system", *COLUMNS, "training, s", "a picture, s", "peak, GB"]
    return markdown_table(head, rows, numbers=range(1, len(head)))


EXTRA_METRICS: Mapping[str, Callable[[Metrics], float | None]] = {
    "palm score": lambda metrics: metrics.palm_score,
    "hand presence": lambda metrics: metrics.hand_presence,
    "implausible hands": lambda metrics: metrics.implausible_hands,
    "CLIP score": lambda metrics: metrics.clip_score,
    "faithful wall": lambda metrics: metrics.faithfulness.get("wall"),
    "skin": lambda metrics: metrics.faithfulness.get("skin"),
    "sleeve": lambda metrics: metrics.faithfulness.get("sleeve"),
    "diversity": lambda metrics: metrics.diversity,
    "memorised": lambda metrics: metrics.memorised,
}
"""What the paper does not measure, a column each."""


def extra_metrics_table(cells: MethodResults) -> str:
    """All gestures' mean in Markdown of what the paper does not measure."""
    rows = []
    for name in next(iter(cells.values())):
        means = (
            _mean([measure(of_gesture[name].metrics) for of_gesture in cells.values()])
            for measure in EXTRA_METRICS.values()
        )
        rows.append([METHODS[name], *(format_number(mean) for mean in means)])
    return markdown_table(["system", *EXTRA_METRICS], rows, numbers=range(1, len(EXTRA_METRICS) + 1))


def advantage_table(cells: MethodResults, name: str = "hand1000") -> str:
    """Markdown: how much better `name` is than each other system, the mean over the gestures with its 95 % interval.

    The interval is Student's over the gestures, each of which has models of its own: it holds the chance of the
    trainings as well as that of the pictures. Positive is better, whichever way the measure goes.
    """
    rows = []
    for other in next(iter(cells.values())):
        if other == name:
            continue
        row = [METHODS[other]]
        for column in COLUMNS:
            pairs = [[_value(of_gesture[one], column) for one in (name, other)] for of_gesture in cells.values()]
            leads = [first - second for first, second in pairs if first is not None and second is not None]
            if len(leads) < max(2, len(pairs)):
                row.append("–")
                continue
            sign = 1 if column in HIGHER_IS_BETTER else -1
            away = float(t.ppf(0.975, len(leads) - 1)) * stdev(leads) / len(leads) ** 0.5
            row.append(f"{sign * fmean(leads):+.3g} ± {away:.2g}")
        rows.append(row)
    return markdown_table([f"{METHODS[name]} ahead of", *COLUMNS], rows, numbers=range(1, len(COLUMNS) + 1))


def paired_table(cells: MethodResults, name: str = "hand1000") -> str:
    """Markdown: how far `name` is ahead of each other system, picture by picture over all gestures, in both rates."""
    rows = []
    for other in next(iter(cells.values())):
        if other == name:
            continue
        row = [METHODS[other]]
        for rate in (_shows_it, _has_a_hand):
            ours, theirs = (
                [rate(picture) for of_gesture in cells.values() for picture in of_gesture[one].metrics.pictures]
                for one in (name, other)
            )
            found = paired_bootstrap(ours, theirs, numpy_generator(0, "paired", other))
            row.append(f"{found.mean:+.3f} ({found.low:+.3f} to {found.high:+.3f}), p = {found.p:.2g}")
        rows.append(row)
    return markdown_table([f"{METHODS[name]} against", "gesture accuracy", "detection rate"], rows, numbers=range(0))


def _shows_it(picture: ImageResult) -> float:
    return float(picture.gesture == picture.asked)


def _has_a_hand(picture: ImageResult) -> float:
    return float(picture.hands > 0)


def count_wins(cells: MethodResults, name: str, column: str) -> int:
    """In how many gestures the system `name` is the best by the measure `column`, alone or with others."""
    return sum(
        name in _best({one: _value(cell, column) for one, cell in of_gesture.items()}, column)
        for of_gesture in cells.values()
    )


def _value(cell: MethodResult, column: str) -> float | None:
    found = interval(cell.metrics, column)
    return None if found is None else found[0]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None


def _best(values: Mapping[str, float | None], column: str) -> set[str]:
    known = {name: value for name, value in values.items() if value is not None}
    if not known:
        return set()
    top = (max if column in HIGHER_IS_BETTER else min)(known.values())
    return {name for name, value in known.items() if value == top}


def _bold(text: str, bold: bool) -> str:
    return f"**{text}**" if bold else text
