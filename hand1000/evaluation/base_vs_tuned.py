"""Comparison of the base model with the fine-tuned model, as report, model card and terminal show it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hand1000.core.errors import Hand1000Error
from hand1000.core.tables import Bold, Table, format_number
from hand1000.evaluation.distances import Distance
from hand1000.evaluation.metrics import Metrics

_SHARED_FIELDS = (
    "gesture",
    "n_real",
    "hands_real",
    "extractor",
    "extractor_sha256",
    "resizer",
    "min_detection_confidence",
)
"""Fields of `Metrics` that are equal in two comparable models."""


@dataclass(frozen=True)
class MetricRow:
    """One metric of both models; `n_base` and `n_tuned` count the images or hands that it is computed from."""

    name: str
    base: float | None
    tuned: float | None
    better: Literal["lower", "higher"]
    n_base: int
    n_tuned: int
    note: str = ""

    @property
    def winner(self) -> Literal["base", "tuned"] | None:
        """The model with the better value; None for a tie or a missing value."""
        if self.base is None or self.tuned is None or self.base == self.tuned:
            return None
        return "tuned" if (self.tuned < self.base) == (self.better == "lower") else "base"

    @property
    def title(self) -> str:
        """The name with ↓ if lower is better, else with ↑."""
        return f"{self.name} {'↓' if self.better == 'lower' else '↑'}"

    @property
    def n(self) -> str:
        """The counts of both models, or a single number if they are equal."""
        return str(self.n_base) if self.n_base == self.n_tuned else f"{self.n_base} / {self.n_tuned}"


def compare_metrics(base: Metrics, tuned: Metrics) -> list[MetricRow]:
    """The metrics of both models in display order.

    Raises:
        Hand1000Error: The metrics were computed from different real images or with different features.
    """
    for name in _SHARED_FIELDS:
        if getattr(base, name) != getattr(tuned, name):
            values = f"{getattr(base, name)!r} and {getattr(tuned, name)!r}"
            raise Hand1000Error(f"{name}: {values} of the two models cannot be compared; evaluate both the same way")
    images, hands = (base.n_fake, tuned.n_fake), (base.hands_fake, tuned.hands_fake)

    def row(name: str, field: str, better: Literal["lower", "higher"], counts: tuple[int, int], note: str) -> MetricRow:
        values = _scalar(getattr(base, field)), _scalar(getattr(tuned, field))
        return MetricRow(name, *values, better, *counts, note)

    rows = [
        row("FID", "fid", "lower", images, f"{base.n_real} real images"),
        row("KID", "kid", "lower", images, _intervals(base.kid, tuned.kid)),
        row("FID-H", "fid_h", "lower", hands, f"{base.hands_real} real hands"),
        row("KID-H", "kid_h", "lower", hands, _intervals(base.kid_h, tuned.kid_h)),
        row("HAND-CONF", "hand_conf", "higher", hands, "detected hands only"),
        row("detection rate", "detection_rate", "higher", images, _real_value(base.real_detection_rate)),
        row("gesture accuracy", "gesture_accuracy", "higher", images, _accuracy_note(tuned)),
    ]
    # Whether the images are new and varied, where that is known: copies of a few training images score well above.
    variety = [
        row("memorization rate", "memorization_rate", "lower", images, "unseen real images: 0.05"),
        row("intra-prompt distance", "intra_prompt_distance", "higher", images, "diversity"),
    ]
    return rows + [metric for metric in variety if metric.base is not None or metric.tuned is not None]


def metrics_table(rows: Sequence[MetricRow]) -> Table:
    """The metrics of both models as a table, with the better value in bold."""
    cells = []
    for row in rows:
        base, tuned = (
            Bold(format_number(value)) if row.winner == model else format_number(value)
            for model, value in (("base", row.base), ("tuned", row.tuned))
        )
        cells.append((row.title, base, tuned, row.n, row.note))
    return Table(("metric", "base", "tuned", "n", "note"), cells, numeric=range(1, 4))


def gesture_rates_table(base: Metrics, tuned: Metrics) -> Table:
    """The rates of each gesture; without rows for a single gesture, whose rates are those of all images."""
    columns = [f"{rate}, {images}" for rate in ("accuracy", "detection") for images in ("base", "tuned", "real")]
    cells = []
    for gesture, metrics in tuned.by_gesture.items() if len(tuned.by_gesture) > 1 else ():
        base_metrics = base.by_gesture[gesture]
        accuracy = (base_metrics.gesture_accuracy, metrics.gesture_accuracy, metrics.real_gesture_accuracy)
        detection = (base_metrics.detection_rate, metrics.detection_rate, metrics.real_detection_rate)
        cells.append((gesture, *map(format_number, (*accuracy, *detection)), metrics.n_fake))
    return Table(("gesture", *columns, "n"), cells, numeric=range(1, 8))


def comparison_text(base: Metrics, tuned: Metrics) -> str:
    """The comparison in plain text: a table of all metrics, and for several gestures a second one of their rates."""
    tables = [metrics_table(compare_metrics(base, tuned)), gesture_rates_table(base, tuned)]
    return "\n".join(table.text() for table in tables if table.rows)


def _scalar(value: float | Distance | None) -> float | None:
    return value.value if isinstance(value, Distance) else value


def _intervals(base: Distance | None, tuned: Distance | None) -> str:
    intervals = ("–" if kid is None else f"{kid.low:.4g} to {kid.high:.4g}" for kid in (base, tuned))
    return f"95 % intervals: {'; '.join(intervals)}"


def _accuracy_note(metrics: Metrics) -> str:
    """The value of real images, the classifier's accuracy on their hands, and where it allows no conclusion."""
    undecided = [gesture for gesture, check in metrics.classifier_checks.items() if not check.is_reliable]
    note = _real_value(metrics.real_gesture_accuracy)
    if len(metrics.classifier_checks) == 1:
        (check,) = metrics.classifier_checks.values()
        note = f"{note}; the classifier names {check.summary}"
    return f"{note}; undecided: {', '.join(undecided)}" if undecided else note


def _real_value(value: float | None) -> str:
    return f"real images: {format_number(value)}"
