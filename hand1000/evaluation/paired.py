"""Whether two systems differ, told on the same prompts and seeds: what the pictures have in common cancels out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000


@dataclass(frozen=True)
class PairedDifference:
    """The mean difference, its 95 % interval, and how likely chance alone gives as much (two-sided)."""

    mean: float
    low: float
    high: float
    p: float


def paired_bootstrap(
    first: Sequence[float], second: Sequence[float], generator: np.random.Generator
) -> PairedDifference:
    """Compare two systems picture by picture.

    The interval is a bootstrap over the pairs. For p the sign of each pair's difference is drawn anew: if the systems
    are alike, either of a pair might as well have been the other's.

    Args:
        first, second: a value a picture, both of one length, at least 2.
        generator: draws the resamples.

    Raises:
        ValueError: other lengths.
    """
    if len(first) != len(second) or len(first) < 2:
        raise ValueError(f"pairs of at least two pictures, not {len(first)} and {len(second)}")
    differences = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    n, mean = len(differences), float(differences.mean())
    means = generator.multinomial(n, np.full(n, 1 / n), RESAMPLES) @ differences / n
    signs = generator.integers(0, 2, (RESAMPLES, n), np.int8) * 2 - 1
    as_much = np.sum(np.abs(signs @ differences / n) >= abs(mean) - 1e-12)
    low, high = np.percentile(means, [2.5, 97.5])
    return PairedDifference(mean, float(low), float(high), float((as_much + 1) / (RESAMPLES + 1)))
