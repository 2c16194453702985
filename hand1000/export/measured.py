"""What an export was measured to lose, for the card of the export and for the report of the model."""

from pathlib import Path
from typing import Literal, Self

from hand1000.config.base import FrozenSettings
from hand1000.core.tables import Table, format_number
from hand1000.storage.files import read_json

EXPORT_METRICS = "export.json"
"""Name of the file with an `ExportMetrics`, in an evaluation and beside the weights of a registered model."""


class ExportMetric(FrozenSettings):
    """One metric of the model and of its export, on the same prompts and seeds.

    Attributes:
        name: Name of the metric.
        gesture: Gesture whose images it is computed from; None for all images.
        better: Whether a lower or a higher value is better.
        n: Number of images of each.
        model: Value of the model with its own sampler; None if the images do not allow it.
        export: Value of the export.
        difference: Export minus model.
        low: Lower end of the difference's 95 % interval.
        high: Upper end of the difference's 95 % interval.
    """

    name: str
    gesture: str | None
    better: Literal["lower", "higher"]
    n: int
    model: float | None
    export: float | None
    difference: float | None
    low: float | None
    high: float | None

    @property
    def title(self) -> str:
        """The name, the gesture if it is one of several, and ↓ if lower is better, else ↑."""
        gesture = f", {self.gesture}" if self.gesture else ""
        return f"{self.name}{gesture} {'↓' if self.better == 'lower' else '↑'}"


class ExportMetrics(FrozenSettings):
    """The metrics of a model's export; without any, `note` says why.

    Attributes:
        mu: Weight of the text embedding with which both generated their images; None without metrics.
        metrics: The metrics in display order.
        note: Why there are none, as a sentence; "" if there are.
    """

    mu: float | None = None
    metrics: tuple[ExportMetric, ...] = ()
    note: str = ""

    @property
    def n(self) -> int:
        """Number of images of all gestures."""
        return sum({metric.gesture: metric.n for metric in self.metrics}.values())

    def select(self, gesture: str) -> Self:
        """The metrics of one gesture, or of all images of a model with only one."""
        rows = tuple(metric for metric in self.metrics if metric.gesture in (None, gesture))
        return self.model_copy(update={"metrics": rows})

    def table(self) -> Table:
        """The metrics of both with the difference and its 95 % interval."""
        rows = []
        for metric in self.metrics:
            values = map(format_number, (metric.model, metric.export, metric.difference))
            interval = "–" if metric.low is None else f"{format_number(metric.low)} to {format_number(metric.high)}"
            rows.append((metric.title, *values, interval, metric.n))
        header = ("metric", "model", "export", "difference", "95 % interval", "n")
        return Table(header, rows, numeric=range(1, 6))


def read_export_metrics(weights: Path) -> ExportMetrics | None:
    """Read the metrics that were registered beside a model's weights; None if there are none."""
    path = weights.parent / EXPORT_METRICS
    # Only beside a manifest is the file that of these weights.
    is_registered = (weights.parent / "manifest.json").is_file() and path.is_file()
    return ExportMetrics.model_validate(read_json(path)) if is_registered else None
