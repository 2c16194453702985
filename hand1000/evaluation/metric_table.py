"""A figure of the base model beside that of the tuned one, as the card and the report show it."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class MetricRow:
    """One measure of both models.

    Args:
        name: as people call it, such as KID.
        base, tuned: its value, None where it could not be measured.
        better: which direction is better.
        n_base, n_tuned: how many pictures, or hands, it was measured on.
        note: what else belongs to it, such as an interval.
    """

    name: str
    base: float | None
    tuned: float | None
    better: Literal["lower", "higher"]
    n_base: int
    n_tuned: int
    note: str = ""

    @property
    def winner(self) -> Literal["base", "tuned"] | None:
        """Whose value is better; None for a tie or where one is missing."""
        if self.base is None or self.tuned is None or self.base == self.tuned:
            return None
        return "tuned" if (self.tuned < self.base) == (self.better == "lower") else "base"

    @property
    def arrow(self) -> str:
        """↓ where lower is better, else ↑."""
        return "↓" if self.better == "lower" else "↑"

    @property
    def n(self) -> str:
        """The counts in one cell, one number where they are equal."""
        return str(self.n_base) if self.n_base == self.n_tuned else f"{self.n_base} / {self.n_tuned}"


@dataclass(frozen=True)
class GestureRow:
    """What can be told of one of several gestures: of the base model's pictures, the tuned one's, and real ones.

    Args:
        gesture: HaGRID's name.
        accuracy, detection: gesture accuracy and detection rate, (base, tuned, real), None where there is nothing.
        n: how many pictures each model drew.
    """

    gesture: str
    accuracy: tuple[float | None, float | None, float | None]
    detection: tuple[float | None, float | None, float | None]
    n: int

    @property
    def cells(self) -> list[str]:
        """A row of the table whose head is `GESTURE_HEADER`."""
        return [self.gesture, *map(format_number, (*self.accuracy, *self.detection)), str(self.n)]


GESTURE_HEADER = (
    "gesture",
    *(f"{rate}, {of}" for rate in ("accuracy", "detection") for of in ("base", "tuned", "real")),
    "n",
)


def format_number(value: float | None) -> str:
    """Four significant digits; a dash where there is no value."""
    return "–" if value is None else f"{value:.4g}"
