"""Quality gates: bounds of a new model's metrics, and of its losses compared with the champion and the base model.

A threshold is compared with the value itself: it states what the model must reach on the test prompts. A comparison
fails only if the whole 95 % interval of the paired difference is beyond the allowed loss: the end of the interval that
is most favorable to the new model decides. Noise therefore seldom fails a gate, and a large loss always does. With 200
images, an accuracy that falls from 0.95 to 0.50 has an interval of about -0.52 to -0.38.
"""

from collections.abc import Iterator

from hand1000.config.base import FrozenSettings
from hand1000.config.gates import GateBounds, GateSettings, GeneralGateBounds
from hand1000.core.tables import format_number
from hand1000.evaluation.paired_metrics import BASE, CHAMPION, TUNED, PairedMetric, PairedMetrics

_METRICS = {
    "gesture accuracy": "gesture_accuracy",
    "detection rate": "detection_rate",
    "KID-H": "kid_h",
    "implausible hand rate": "implausible_hand_rate",
    "memorization rate": "memorization_rate",
    "diversity": "diversity",
    "color faithfulness": "color_faithfulness",
    "general detection rate": "general_detection_rate",
    "general color faithfulness": "general_color_faithfulness",
    "general KID": "general_kid",
}
"""Field of `GateSettings` of each metric with gates."""

_CONDITIONAL = {
    "implausible hand rate": "the test images have too few hands",
    "memorization rate": "there are no training images",
    "diversity": "no prompt has two images",
    "color faithfulness": "the prompts name no colors that the test images define",
    "general detection rate": "evaluation.general_images is 0",
    "general color faithfulness": "there are no such images, or their prompts name no colors",
    "general KID": "evaluation.general_images is 0",
}
"""Metrics that some datasets or settings do not allow, and why. They then have no gate; any other metric must have a
value."""

_FEW_IMAGES = 100


class GateResult(FrozenSettings):
    """The outcome of one gate.

    Attributes:
        name: Name of the metric.
        gesture: Gesture whose images the metric is computed from; None for all images.
        rule: The bound in words, such as "at least 0.5" or "at most 0.05 below the champion's".
        value: Value of the new model, None if it could not be measured.
        low: Lower bound of the 95 % interval of the value or, in a comparison, of the difference.
        high: Upper bound of that interval.
        champion: Value of the champion; None in a gate without a champion.
        passed: Whether the bound is satisfied. A value that could not be measured fails.
    """

    name: str
    gesture: str | None
    rule: str
    value: float | None
    low: float | None
    high: float | None
    champion: float | None
    passed: bool

    @property
    def title(self) -> str:
        """The name of the metric, with the gesture if there is one."""
        return _title(self.name, self.gesture)

    def __str__(self) -> str:
        value = "not measured" if self.value is None else format_number(self.value)
        return f"{self.title} {value}, {self.rule}"


class GateReport(FrozenSettings):
    """The outcomes of all gates; `gates.json` of a run.

    Attributes:
        champion: Address of the version that the new model was compared with; "" for none.
        results: Outcome of each gate.
        notes: Gates that do not apply, and what limits the comparisons.
    """

    champion: str
    results: tuple[GateResult, ...]
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether all gates passed."""
        return all(result.passed for result in self.results)

    @property
    def verdict(self) -> str:
        """`passed` or `failed`."""
        return "passed" if self.passed else "failed"

    @property
    def failures(self) -> tuple[GateResult, ...]:
        """The gates that failed."""
        return tuple(result for result in self.results if not result.passed)

    @property
    def summary(self) -> str:
        """The verdict in one line, with the gates that failed."""
        if self.passed:
            compared = f"compared with {self.champion}" if self.champion else "without a champion to compare with"
            return f"passed: all {len(self.results)} gates, {compared}"
        return f"failed: {'; '.join(map(str, self.failures))}"


def _title(name: str, gesture: str | None) -> str:
    return f"{name}, {gesture}" if gesture else name


def evaluate_gates(metrics: PairedMetrics, settings: GateSettings, champion: str) -> GateReport:
    """Evaluate all gates.

    Args:
        metrics: Metrics of the new model, the base model and, if there is one, the champion.
        settings: The bounds.
        champion: Address of the champion, "" for none; goes into the report.
    """
    results: list[GateResult] = []
    notes: list[str] = []
    for name, field in _METRICS.items():
        bounds: GateBounds | GeneralGateBounds = getattr(settings, field)
        if not any(bound is not None for bound in bounds.model_dump().values()):
            continue
        rows = metrics.find(name)
        if not rows:
            notes.append(f"{name} has no gate: {_CONDITIONAL[name]}")
        for row in rows:
            results += _evaluate_metric(row, bounds, bool(champion))
            if champion and bounds.max_loss is not None and CHAMPION not in row.differences:
                notes.append(f"{_title(row.name, row.gesture)} is not compared with the champion: {row.note}")
    few = sorted({row.n for row in metrics.metrics if row.n < _FEW_IMAGES})
    if few and champion:
        notes.append(
            f"{few[0]} images per model: the intervals are wide, so that a comparison detects large losses only"
        )
    return GateReport(champion=champion, results=tuple(results), notes=tuple(notes))


def _evaluate_metric(
    metric: PairedMetric, bounds: GateBounds | GeneralGateBounds, has_champion: bool
) -> Iterator[GateResult]:
    if isinstance(bounds, GateBounds) and bounds.threshold is not None:
        yield _check_threshold(metric, bounds.threshold)
    if isinstance(bounds, GeneralGateBounds) and bounds.max_loss_to_base is not None and BASE in metric.differences:
        yield _check_loss(metric, BASE, bounds.max_loss_to_base)
    if has_champion and bounds.max_loss is not None and CHAMPION in metric.differences:
        yield _check_loss(metric, CHAMPION, bounds.max_loss)


def _check_threshold(metric: PairedMetric, threshold: float) -> GateResult:
    estimate, champion = metric.models.get(TUNED), metric.models.get(CHAMPION)
    higher = metric.better == "higher"
    passed = estimate is not None and (estimate.value >= threshold if higher else estimate.value <= threshold)
    return GateResult(
        name=metric.name,
        gesture=metric.gesture,
        rule=f"{'at least' if higher else 'at most'} {threshold:.3g}",
        value=estimate.value if estimate else None,
        low=estimate.low if estimate else None,
        high=estimate.high if estimate else None,
        champion=champion.value if champion else None,
        passed=passed,
    )


def _check_loss(metric: PairedMetric, other: str, max_loss: float) -> GateResult:
    """Compare the most favorable end of the difference's interval with the allowed loss."""
    estimate, reference, difference = metric.models[TUNED], metric.models[other], metric.differences[other]
    champion, higher = metric.models.get(CHAMPION), metric.better == "higher"
    whose = "the champion's" if other == CHAMPION else "the base model's"
    return GateResult(
        name=metric.name,
        gesture=metric.gesture,
        rule=f"at most {max_loss:.3g} {'below' if higher else 'above'} {whose} {format_number(reference.value)}",
        value=estimate.value,
        low=difference.low,
        high=difference.high,
        champion=champion.value if champion else None,
        passed=(-difference.high if higher else difference.low) <= max_loss,
    )
