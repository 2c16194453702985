"""The outcomes of the quality gates, `gates.json` of a run; see `hand1000.evaluation.gates`."""

from typing import Literal

from hand1000.config.base import FrozenSettings
from hand1000.core.tables import format_number

Outcome = Literal["passed", "failed", "undecided"]


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
        undecided: Why the value allows no verdict; "" if it does. Such a gate has neither passed nor failed.
    """

    name: str
    gesture: str | None
    rule: str
    value: float | None
    low: float | None
    high: float | None
    champion: float | None
    passed: bool
    undecided: str = ""

    @property
    def outcome(self) -> Outcome:
        """`passed`, `failed` or `undecided`."""
        return "undecided" if self.undecided else "passed" if self.passed else "failed"

    @property
    def title(self) -> str:
        """The name of the metric, with the gesture if there is one."""
        return make_title(self.name, self.gesture)

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
        return self.verdict == "passed"

    @property
    def verdict(self) -> Outcome:
        """`failed` if a gate failed, else `undecided` if one could not be decided, else `passed`."""
        outcomes = {result.outcome for result in self.results}
        return "failed" if "failed" in outcomes else "undecided" if "undecided" in outcomes else "passed"

    @property
    def failures(self) -> tuple[GateResult, ...]:
        """The gates that failed."""
        return tuple(result for result in self.results if result.outcome == "failed")

    @property
    def undecided(self) -> tuple[GateResult, ...]:
        """The gates whose values allow no verdict."""
        return tuple(result for result in self.results if result.undecided)

    @property
    def summary(self) -> str:
        """The verdict in one line, with the gates that failed."""
        if self.passed:
            compared = f"compared with {self.champion}" if self.champion else "without a champion to compare with"
            return f"passed: all {len(self.results)} gates, {compared}"
        if self.failures:
            return f"failed: {'; '.join(map(str, self.failures))}"
        reasons = dict.fromkeys(f"{result.title}: {result.undecided}" for result in self.undecided)
        return f"undecided: {'; '.join(reasons)}".replace(": undecided: ", ": ")


def make_title(name: str, gesture: str | None) -> str:
    """Return the name of a metric, with the gesture if there is one."""
    return f"{name}, {gesture}" if gesture else name
