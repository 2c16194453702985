"""Which operations of PyTorch take the time of a step, for the rows that miss their goal."""

from collections.abc import Callable
from dataclasses import dataclass

_PRODUCTS = ("conv", "addmm", "mm", "linear", "attention")
"""Parts of the names of convolutions, matrix products and attention, which no other code can leave out."""


@dataclass(frozen=True)
class StepProfile:
    """Shares of the time of one step on the CPU.

    Attributes:
        longest: The operations that take the most of it, as text.
        products: Share of convolutions, matrix products and attention, 0 to 1.
    """

    longest: str
    products: float

    def describe(self, ratio: float) -> str:
        """Say what a ratio greater than `ratio` would need."""
        return (
            f"of the step: {self.longest}; convolutions, matrix products and attention together {self.products:.0%}, "
            f"so that without anything else the ratio would be {ratio / max(self.products, 1e-3):.2f}x; more needs "
            "fewer of them, a lower precision or faster kernels"
        )


def profile_step(step: Callable[[], object], count: int = 5) -> StepProfile:
    """Profile one `step` on the CPU, and name `count` operations."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        step()
    times = {event.key.removeprefix("aten::"): event.self_cpu_time_total for event in profiler.key_averages()}
    total = max(sum(times.values()), 1e-9)
    longest = sorted(times.items(), key=lambda item: -item[1])[:count]
    products = sum(time for name, time in times.items() if any(word in name for word in _PRODUCTS)) / total
    return StepProfile(", ".join(f"{name} {time / total:.0%}" for name, time in longest), products)


def describe_operations(step: Callable[[], object]) -> Callable[[float], str]:
    """Return the note of a row: the profile of `step`, made when the ratio is known."""
    return lambda ratio: profile_step(step).describe(ratio)
