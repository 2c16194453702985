"""Whether a model's measures pass its gates."""

from collections.abc import Mapping
from dataclasses import dataclass

from hand1000.config.gates import GateSettings


@dataclass(frozen=True)
class Gate:
    """One bound and the value that was held against it; None where there is none to measure."""

    name: str
    value: float | None
    bound: float
    least: bool

    @property
    def passed(self) -> bool:
        """Whether it holds; what could not be measured does not."""
        if self.value is None:
            return False
        return self.value >= self.bound if self.least else self.value <= self.bound

    def __str__(self) -> str:
        value = "not measured" if self.value is None else f"{self.value:.3g}"
        return f"{self.name} {value}, {'at least' if self.least else 'at most'} {self.bound:.3g}"


def evaluate_gates(
    measures: Mapping[str, float], champion: Mapping[str, float] | None, settings: GateSettings
) -> tuple[Gate, ...]:
    """Every gate.

    Args:
        measures: of the new model, by their names in the report.
        champion: of the model it would take the place of, if there is one.
        settings: the bounds.
    """
    found = [
        Gate("gesture accuracy", measures.get("gesture accuracy"), settings.min_gesture_accuracy, least=True),
        Gate("detection rate", measures.get("detection rate"), settings.min_detection_rate, least=True),
    ]
    if champion is not None and "KID-H" in champion:
        bound = champion["KID-H"] + settings.max_kid_h_increase
        found.append(Gate("KID-H", measures.get("KID-H"), bound, least=False))
    return tuple(found)
