"""The report of sweeps: a table and a plot of each."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hand1000.config.sweep import Sweep
from hand1000.core.rng import numpy_generator
from hand1000.core.tables import Table
from hand1000.evaluation.methods import format_interval
from hand1000.evaluation.metrics import COLUMNS, Interval, Metrics
from hand1000.evaluation.paired import paired_bootstrap
from hand1000.reports.html import render_template
from hand1000.storage.files import write_text

PLOTTED_COLUMNS = ("gesture accuracy", "FID-H", "KID-H")


def write_sweeps(
    folder: Path, gesture: str, sweeps: Mapping[str, Sweep], metrics: Mapping[str, Sequence[Metrics]], base: Metrics
) -> None:
    """Write `<name>.md` (the table) and `<name>.png` (the plot) of each sweep, and `sweeps.html` with all of them.

    `metrics` are those of each sweep's runs, in the order of its points.
    """
    sections = []
    for name, sweep in sweeps.items():
        table, plot = sweep_table(sweep, metrics[name], base), folder / f"{name}.png"
        write_text(folder / f"{name}.md", table.markdown())
        plot_sweep(plot, sweep, metrics[name])
        sections.append({"title": sweep.title, "table": table, "plot": plot})
    write_text(folder / "sweeps.html", render_template("sweeps.html.j2", gesture=gesture, sweeps=sections))


def sweep_table(sweep: Sweep, metrics: Sequence[Metrics], base: Metrics) -> Table:
    """The base model and the points of a sweep, one row each.

    The last column is a paired test over the prompts: the gesture accuracy of the point minus that of the reference,
    which is the only point without changes, or else the first point.
    """
    unchanged = [index for index, point in enumerate(sweep.points) if not point.changes]
    reference = unchanged[0] if len(unchanged) == 1 else 0
    labels = ["base model", *(point.label for point in sweep.points)]
    rows = [
        [
            label,
            *(format_interval(row_metrics.interval(column)) for column in COLUMNS),
            _compare_accuracy(row_metrics, metrics[reference]),
        ]
        for label, row_metrics in zip(labels, [base, *metrics], strict=True)
    ]
    header = [sweep.axis or "variant", *COLUMNS, f"accuracy minus that of {sweep.points[reference].label}"]
    return Table(header, rows, numeric=range(1, len(header)))


def plot_sweep(path: Path, sweep: Sweep, metrics: Sequence[Metrics]) -> None:
    """Plot the points with their 95 % intervals as a PNG file: curves over a numeric axis, else marks by label."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(PLOTTED_COLUMNS), 3.4), layout="constrained")
    labels = [point.label for point in sweep.points]
    for axes, column in zip(figure.subplots(1, len(PLOTTED_COLUMNS)), PLOTTED_COLUMNS, strict=True):
        points: list[tuple[float, Interval]] = [
            (float(label) if sweep.axis else index, interval)
            for index, (label, point_metrics) in enumerate(zip(labels, metrics, strict=True))
            if (interval := point_metrics.interval(column))
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


def _compare_accuracy(metrics: Metrics, reference: Metrics) -> str:
    """The difference in gesture accuracy with the p-value of the paired test."""
    if metrics is reference or len(metrics.images) != len(reference.images):
        return "–"
    first, second = ([float(image.shows_target) for image in side.images] for side in (metrics, reference))
    difference = paired_bootstrap(first, second, numpy_generator(0, "paired"))
    return f"{difference.mean:+.3f}, p = {difference.p:.2g}"
