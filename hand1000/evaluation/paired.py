"""Paired comparison of two methods on the same prompts and seeds.

The difficulty of a prompt cancels out, so that a paired test detects smaller differences than two separate intervals.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000


@dataclass(frozen=True)
class PairedDifference:
    """Mean difference, the bounds of its 95 % interval, and the two-sided p-value of a sign-flip permutation test."""

    mean: float
    low: float
    high: float
    p: float


def paired_bootstrap(
    first: Sequence[float], second: Sequence[float], generator: np.random.Generator
) -> PairedDifference:
    """Compare two methods image by image.

    The interval is a percentile bootstrap over the pairs. The sign-flip permutation test uses that the sign of each
    difference is arbitrary if both methods are equally good.

    Raises:
        ValueError: The lengths differ or are less than 2.
    """
    if len(first) != len(second) or len(first) < 2:
        raise ValueError(f"pairs of at least two images are required, not {len(first)} and {len(second)} images")
    differences = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    n, mean = len(differences), float(differences.mean())
    means = generator.multinomial(n, np.full(n, 1 / n), RESAMPLES) @ differences / n
    signs = generator.integers(0, 2, (RESAMPLES, n), np.int8) * 2 - 1
    at_least_as_large = np.sum(np.abs(signs @ differences / n) >= abs(mean) - 1e-12)
    low, high = np.percentile(means, [2.5, 97.5])
    return PairedDifference(mean, float(low), float(high), float((at_least_as_large + 1) / (RESAMPLES + 1)))
