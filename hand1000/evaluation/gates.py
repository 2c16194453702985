"""Quality gates: bounds of a new model's metrics, and of its losses compared with the champion and the base model.

A threshold is compared with the value itself: it states what the model must reach on the test prompts. A comparison
fails only if the whole 95 % interval of the paired difference is beyond the allowed loss: the end of the interval that
is most favorable to the new model decides. Noise therefore seldom fails a gate, and a large loss always does. With 200
images, an accuracy that falls from 0.95 to 0.50 has an interval of about -0.52 to -0.38.
"""

from collections.abc import Iterator

from hand1000.config.gates import GateBounds, GateSettings, GeneralGateBounds
from hand1000.core.tables import format_number
from hand1000.evaluation.gate_report import GateReport, GateResult, make_title
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
    "general KID-H": "general_kid_h",
    "general leak rate": "general_leak_rate",
    "other-gesture accuracy": "other_gesture_accuracy",
    "other-gesture leak rate": "other_gesture_leak_rate",
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
    "general KID-H": "evaluation.general_images is 0",
    "general leak rate": "there are no such images, or the classifier does not know the gesture",
    "other-gesture accuracy": "evaluation.other_gesture_images is 0, or the model has all gestures of HaGRID v1",
    "other-gesture leak rate": "there are no such images, or the classifier does not know the gesture",
}
"""Metrics that some datasets or settings do not allow, and why. They then have no gate; any other metric must have a
value."""

_FEW_IMAGES = 100


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
            gates = _evaluate_metric(row, bounds, bool(champion))
            changes = {"passed": False, "undecided": row.undecided} if row.undecided else {}
            results += [gate.model_copy(update=changes) for gate in gates]
            if champion and bounds.max_loss is not None and CHAMPION not in row.differences:
                notes.append(f"{make_title(row.name, row.gesture)} is not compared with the champion: {row.note}")
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
        passed=not difference.is_loss(metric.better, max_loss),
    )
