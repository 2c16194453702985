"""Figure of a method comparison: the differences of Hand1000 and plain fine-tuning with their intervals."""

from pathlib import Path
from typing import Any

from hand1000.config.comparison import METHODS
from hand1000.evaluation.methods import (
    OURS,
    PLAIN,
    WITHOUT_ORDER,
    MethodResults,
    average_column,
    better_value,
    estimate_lead,
)
from hand1000.evaluation.paired import Estimate

PLOTTED_COLUMNS = ("gesture accuracy", "FID-H", "KID-H", "FID", "intra-prompt distance", "memorization rate")
_COLUMNS_PER_ROW = 3
_MEAN_COLOR, _GESTURE_COLOR, _DOT_COLOR = "#c2410c", "#3b82d4", "#808891"


def plot_differences(path: Path, results: MethodResults) -> None:
    """Plot a panel per metric as a PNG file: the gestures and their mean, one row each, and a dot per training."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    rows = len(PLOTTED_COLUMNS) // _COLUMNS_PER_ROW
    labels = [*results, "mean"]
    figure = Figure(figsize=(12.0, rows * (1.1 + 0.28 * len(labels))), layout="constrained")
    panels = figure.subplots(rows, _COLUMNS_PER_ROW, sharey=True)
    for axes, column in zip(panels.flat, PLOTTED_COLUMNS, strict=True):
        axes.axvline(0, color=_DOT_COLOR, linewidth=1)
        for row, (gesture, methods) in enumerate(results.items()):
            dots = _training_differences(results, gesture, column)
            axes.plot(dots, [row] * len(dots), ".", color=_DOT_COLOR, markersize=5)
            _plot_estimate(axes, row, estimate_lead({gesture: methods}, column), _GESTURE_COLOR)
        _plot_estimate(axes, len(results), estimate_lead(results, column), _MEAN_COLOR)
        better = "" if column in WITHOUT_ORDER else f", {better_value(column)} is better"
        axes.set_title(f"{column}{better}", fontsize=10)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.grid(axis="x", alpha=0.3)
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.5, -0.5)
    figure.suptitle(f"{METHODS[OURS]} minus {METHODS[PLAIN]}, 95 % intervals", fontsize=11)
    FigureCanvasAgg(figure).print_png(str(path), metadata={"Software": None})


def _training_differences(results: MethodResults, gesture: str, column: str) -> list[float]:
    """The difference of each training of a gesture that has both values."""
    pairs = zip(results[gesture][OURS], results[gesture][PLAIN], strict=True)
    values = [[average_column([result], column) for result in pair] for pair in pairs]
    return [first - second for first, second in values if first is not None and second is not None]


def _plot_estimate(axes: Any, row: int, estimate: Estimate | None, color: str) -> None:
    if estimate is None:
        return
    # A bootstrap interval need not contain the estimate.
    below, above = max(estimate.value - estimate.low, 0.0), max(estimate.high - estimate.value, 0.0)
    axes.errorbar([estimate.value], [row], xerr=[[below], [above]], fmt="o", capsize=3, color=color, markersize=5)
