"""The outcomes of the quality gates, `gates.json` of a run; see `hand1000.evaluation.gates`."""

from hand1000.config.base import FrozenSettings
from hand1000.core.tables import format_number


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


def make_title(name: str, gesture: str | None) -> str:
    """Return the name of a metric, with the gesture if there is one."""
    return f"{name}, {gesture}" if gesture else name
