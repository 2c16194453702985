"""Quality gates: bounds that the metrics of a retrained model must satisfy."""

from collections.abc import Mapping
from dataclasses import dataclass

from hand1000.config.gates import GateSettings


@dataclass(frozen=True)
class Gate:
    """A metric's value, None if it could not be measured, and its bound, which is a minimum or a maximum."""

    name: str
    value: float | None
    bound: float
    is_minimum: bool

    @property
    def passed(self) -> bool:
        """Whether the value satisfies the bound. A missing value fails."""
        if self.value is None:
            return False
        return self.value >= self.bound if self.is_minimum else self.value <= self.bound

    def __str__(self) -> str:
        value = "not measured" if self.value is None else f"{self.value:.3g}"
        return f"{self.name} {value}, {'at least' if self.is_minimum else 'at most'} {self.bound:.3g}"


def evaluate_gates(
    metrics: Mapping[str, float], champion_metrics: Mapping[str, float] | None, settings: GateSettings
) -> tuple[Gate, ...]:
    """Evaluate all gates.

    Args:
        metrics: Metrics of the new model, by the names of `base_vs_tuned.compare_metrics`.
        champion_metrics: Metrics of the model that it would replace, None for a first model.
        settings: The bounds.
    """
    gates = [
        Gate("gesture accuracy", metrics.get("gesture accuracy"), settings.min_gesture_accuracy, is_minimum=True),
        Gate("detection rate", metrics.get("detection rate"), settings.min_detection_rate, is_minimum=True),
    ]
    if champion_metrics is not None and "KID-H" in champion_metrics:
        bound = champion_metrics["KID-H"] + settings.max_kid_h_increase
        gates.append(Gate("KID-H", metrics.get("KID-H"), bound, is_minimum=False))
    return tuple(gates)
