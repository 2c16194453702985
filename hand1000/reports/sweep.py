"""The report of sweeps: tables and a plot of each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import numpy as np

from hand1000.config.sweep import Sweep
from hand1000.core.rng import numpy_generator
from hand1000.core.tables import Table, format_number
from hand1000.evaluation.general import GeneralMetrics
from hand1000.evaluation.method_tables import format_interval
from hand1000.evaluation.metrics import COLUMNS, Interval, Metrics
from hand1000.evaluation.paired import Estimate, compute_mcnemar_p, paired_bootstrap
from hand1000.evaluation.paired_metrics import BASE, TUNED, PairedMetrics
from hand1000.evaluation.trainings import estimate_over_trainings
from hand1000.reports.html import render_template
from hand1000.storage.files import read_json, write_text

PLOTTED_COLUMNS = ("gesture accuracy", "FID-H", "KID-H")

GENERAL_COLUMNS = (
    *("general detection rate", "general color faithfulness", "general KID", "general KID-H", "general leak rate"),
    *("other-gesture accuracy", "other-gesture leak rate"),
)
"""Metrics of prompts that do not ask for the trained gesture, in the order of their table."""

_Evaluated = TypeVar("_Evaluated", Metrics, GeneralMetrics)

_LEAKS = {"general": "general leak rate", "other": "other-gesture leak rate"}


@dataclass(frozen=True)
class Trainings:
    """The repeated trainings of one point: what was measured of each, in the order of their seeds.

    Attributes:
        tuned: Metrics of each tuned model.
        base: Metrics of the base model with the seeds of each.
        paired: Their paired metrics.
        general: Metrics of images that were not asked for the gesture, by kind, `general` or `other`.
    """

    tuned: Sequence[Metrics]
    base: Sequence[Metrics]
    paired: Sequence[PairedMetrics]
    general: Mapping[str, Sequence[GeneralMetrics]]

    @classmethod
    def read(cls, evaluations: Sequence[Path]) -> Self:
        """Read the evaluations of the trainings."""
        general = {
            kind: [GeneralMetrics.model_validate(read_json(folder / f"{kind}_tuned.json")) for folder in evaluations]
            for kind in _LEAKS
            if all((folder / f"{kind}_tuned.json").is_file() for folder in evaluations)
        }
        return cls(
            tuned=[Metrics.model_validate(read_json(folder / "tuned.json")) for folder in evaluations],
            base=[Metrics.model_validate(read_json(folder / "base.json")) for folder in evaluations],
            paired=[PairedMetrics.model_validate(read_json(folder / "paired.json")) for folder in evaluations],
            general=general,
        )

    def general_interval(self, name: str, model: str) -> Interval | None:
        """A metric of `GENERAL_COLUMNS` of `base` or `tuned`: its own interval, or the mean and range of trainings."""
        estimates = [metric.models.get(model) for paired in self.paired for metric in paired.find(name)]
        known = [estimate for estimate in estimates if estimate is not None]
        if len(known) < len(self.paired):
            return None
        return _summarize([(estimate.value, estimate.low, estimate.high) for estimate in known])


def write_sweeps(
    folder: Path, gesture: str, sweeps: Mapping[str, Sweep], results: Mapping[str, Sequence[Trainings]]
) -> None:
    """Write `<name>.md` (the table) and `<name>.png` (the plot) of each sweep, and `sweeps.html` with all of them.

    `<name>-general.md` has the metrics of prompts that do not ask for the gesture, if they were generated. `results`
    are those of each sweep's points, in their order.
    """
    sections = []
    for name, sweep in sweeps.items():
        tables, plot = [sweep_table(sweep, results[name])], folder / f"{name}.png"
        write_text(folder / f"{name}.md", tables[0].markdown())
        if all(point.general for point in results[name]):
            tables.append(general_table(sweep, results[name]))
            write_text(folder / f"{name}-general.md", tables[1].markdown())
        plot_sweep(plot, sweep, results[name])
        sections.append({"title": sweep.title, "tables": tables, "plot": plot})
    gestures = sorted({sweep.gesture or gesture for sweep in sweeps.values()})
    page = render_template("sweeps.html.j2", gesture="; ".join(gestures), sweeps=sections)
    write_text(folder / "sweeps.html", page)


def sweep_table(sweep: Sweep, results: Sequence[Trainings]) -> Table:
    """The base model and the points of a sweep, one row each.

    The last column is the gesture accuracy of the point minus that of the reference, which is the only point without
    changes, or else the first point. It is a paired test over the prompts, or of several trainings the mean with its
    interval over trainings and prompts. The other columns of several trainings are their mean and range.
    """
    reference = _reference(sweep)
    rows = []
    for label, point in zip(_labels(sweep), [None, *results], strict=True):
        trainings = results[0].base if point is None else point.tuned
        values = [_summarize([metrics.interval(column) for metrics in trainings]) for column in COLUMNS]
        rows.append([label, *map(format_interval, values), _compare_accuracy(trainings, results[reference].tuned)])
    header = [sweep.axis or "variant", *COLUMNS, f"accuracy minus that of {sweep.points[reference].label}"]
    return Table(header, rows, numeric=range(1, len(header)))


def general_table(sweep: Sweep, results: Sequence[Trainings]) -> Table:
    """The same of the metrics of `GENERAL_COLUMNS`, with the difference of both leak rates to the reference.

    The row of the distances "of equal models" is the upper end of what they are by chance.
    """
    reference = _reference(sweep)
    rows = []
    for label, point in zip(_labels(sweep), [None, *results], strict=True):
        model, trainings = (BASE, results[0]) if point is None else (TUNED, point)
        row = [label, *(format_interval(trainings.general_interval(name, model)) for name in GENERAL_COLUMNS)]
        for kind in _LEAKS:
            row.append("–" if point is None else _compare_leaks(point, results[reference], kind))
        rows.append(row)
    nulls = [
        max((null.high for point in results for null in _nulls(point, name)), default=None) for name in GENERAL_COLUMNS
    ]
    rows.append(["equal models, at most", *map(format_number, nulls), *["–"] * len(_LEAKS)])
    reference_label = sweep.points[reference].label
    header = [sweep.axis or "variant", *GENERAL_COLUMNS]
    header += [f"{name} minus that of {reference_label}" for name in _LEAKS.values()]
    return Table(header, rows, numeric=range(1, len(header)))


def plot_sweep(path: Path, sweep: Sweep, results: Sequence[Trainings]) -> None:
    """Plot the points with their intervals as a PNG file: curves over a numeric axis, else marks by label."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(PLOTTED_COLUMNS), 3.4), layout="constrained")
    labels = [point.label for point in sweep.points]
    for axes, column in zip(figure.subplots(1, len(PLOTTED_COLUMNS)), PLOTTED_COLUMNS, strict=True):
        points: list[tuple[float, Interval]] = [
            (float(label) if sweep.axis else index, interval)
            for index, (label, point) in enumerate(zip(labels, results, strict=True))
            if (interval := _summarize([metrics.interval(column) for metrics in point.tuned]))
        ]
        x = [x for x, _ in points]
        values, lows, highs = ([interval[part] for _, interval in points] for part in range(3))
        # A bootstrap interval need not contain the estimate.
        below = [max(value - low, 0.0) for value, low in zip(values, lows, strict=True)]
        above = [max(high - value, 0.0) for value, high in zip(values, highs, strict=True)]
        axes.errorbar(x, values, [below, above], fmt="o-" if sweep.axis else "o", capsize=3)
        axes.set_title(column)
        axes.grid(alpha=0.3)
        if sweep.axis:
            axes.set_xlabel(sweep.axis)
        else:
            axes.set_xticks(range(len(labels)), labels, rotation=30, ha="right")
    FigureCanvasAgg(figure).print_png(str(path), metadata={"Software": None})


def _labels(sweep: Sweep) -> list[str]:
    return ["base model", *(point.label for point in sweep.points)]


def _reference(sweep: Sweep) -> int:
    unchanged = [index for index, point in enumerate(sweep.points) if not point.changes]
    return unchanged[0] if len(unchanged) == 1 else 0


def _nulls(point: Trainings, name: str) -> list[Estimate]:
    return [metric.null for paired in point.paired for metric in paired.find(name) if metric.null is not None]


def _summarize(intervals: Sequence[Interval | None]) -> Interval | None:
    """The interval of a single training, or the mean of several with their least and greatest value."""
    known = [interval for interval in intervals if interval is not None]
    if not known or len(known) < len(intervals):
        return None
    if len(known) == 1:
        return known[0]
    values = [value for value, _, _ in known]
    return sum(values) / len(values), min(values), max(values)


def _compare_accuracy(trainings: Sequence[Metrics], reference: Sequence[Metrics]) -> str:
    """The difference in gesture accuracy to the reference."""

    def shown(metrics: Metrics) -> list[bool]:
        return [image.shows_target for image in metrics.images]

    return _compare(trainings, reference, shown, _test_signs)


def _compare_leaks(point: Trainings, reference: Trainings, kind: str) -> str:
    """The difference in a leak rate to the reference; `kind` is one of `_LEAKS`."""

    def leaked(metrics: GeneralMetrics) -> list[bool]:
        return [image.leaks for image in metrics.images]

    if kind not in point.general or kind not in reference.general:
        return "–"
    return _compare(point.general[kind], reference.general[kind], leaked, compute_mcnemar_p)


def _test_signs(first: np.ndarray, second: np.ndarray) -> float:
    return paired_bootstrap(first.astype(float).tolist(), second.astype(float).tolist(), numpy_generator(0, "paired")).p


def _compare(
    trainings: Sequence[_Evaluated],
    reference: Sequence[_Evaluated],
    read: Callable[[_Evaluated], Sequence[bool]],
    test: Callable[[np.ndarray, np.ndarray], float],
) -> str:
    """The mean difference with the p-value of a paired test over the prompts, or with an interval over trainings."""
    values = [[np.array(read(training)) for training in side] for side in (trainings, reference)]
    shapes = {array.shape for side in values for array in side}
    if trainings is reference or len(shapes) > 1:
        return "–"
    differences = np.array(values[0], float) - np.array(values[1], float)
    if len(differences) == 1:
        return f"{differences.mean():+.3f}, p = {test(values[0][0], values[1][0]):.2g}"
    estimate = estimate_over_trainings([differences], numpy_generator(0, "trainings"))
    return "–" if estimate is None else f"{estimate.value:+.3f} ({estimate.low:+.3f} to {estimate.high:+.3f})"
