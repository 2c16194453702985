"""The runs of a sweep side by side: a table and a plot."""

from collections.abc import Sequence
from pathlib import Path

from hand1000.config.sweep import Sweep
from hand1000.core.rng import numpy_generator
from hand1000.core.tables import Table
from hand1000.evaluation.methods import format_interval
from hand1000.evaluation.metrics import COLUMNS, Interval, Metrics
from hand1000.evaluation.paired import paired_bootstrap

PLOTTED = ("gesture accuracy", "FID-H", "KID-H")


def sweep_table(sweep: Sweep, measured: Sequence[Metrics], base: Metrics) -> str:
    """A Markdown table: the base model, then the points of `sweep`, as they were measured.

    The last column is a paired test over the prompts: each point's accuracy less that of the point in which nothing is
    changed, or of the first where there is not one such point.
    """
    rows = [("base model", base), *((point.label, one) for point, one in zip(sweep.points, measured, strict=True))]
    unchanged = [index for index, point in enumerate(sweep.points) if not point.changes]
    reference = unchanged[0] if len(unchanged) == 1 else 0
    cells = [
        [label, *(format_interval(one.interval(column)) for column in COLUMNS), _against(measured[reference], one)]
        for label, one in rows
    ]
    head = [sweep.axis or "variant", *COLUMNS, f"accuracy against {sweep.points[reference].label}"]
    return Table(head, cells, numeric=range(1, len(head))).markdown()


def _against(reference: Metrics, other: Metrics) -> str:
    """The difference in gesture accuracy, picture by picture."""
    if other is reference:
        return "–"
    first, second = ([float(one.shows_target) for one in found.images] for found in (other, reference))
    if len(first) != len(second):
        return "–"
    difference = paired_bootstrap(first, second, numpy_generator(0, "paired"))
    return f"{difference.mean:+.3f}, p = {difference.p:.2g}"


def plot_sweep(path: Path, sweep: Sweep, measured: Sequence[Metrics]) -> None:
    """Draw the points with their 95 % intervals as a PNG file: curves over an axis of numbers, else marks by name."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(4 * len(PLOTTED), 3.4), layout="constrained")
    labels = [point.label for point in sweep.points]
    for place, column in zip(drawing.subplots(1, len(PLOTTED)), PLOTTED, strict=True):
        shown: list[tuple[float, Interval]] = []
        for index, (label, one) in enumerate(zip(labels, measured, strict=True)):
            if found := one.interval(column):
                shown.append((float(label) if sweep.axis else index, found))
        x = [x for x, _ in shown]
        values, lows, highs = ([found[part] for _, found in shown] for part in range(3))
        # The interval of a bootstrap need not hold the estimate.
        below = [max(value - low, 0.0) for value, low in zip(values, lows, strict=True)]
        above = [max(high - value, 0.0) for value, high in zip(values, highs, strict=True)]
        place.errorbar(x, values, [below, above], fmt="o-" if sweep.axis else "o", capsize=3)
        place.set_title(column)
        place.grid(alpha=0.3)
        if sweep.axis:
            place.set_xlabel(sweep.axis)
        else:
            place.set_xticks(range(len(labels)), labels, rotation=30, ha="right")
    FigureCanvasAgg(drawing).print_png(str(path), metadata={"Software": None})
