"""Paired comparison of models on the same prompts and seeds.

The difficulty of a prompt cancels out, so that a paired comparison detects smaller differences than two separate
intervals. `docs/review.md` says how the gates read the intervals.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import binomtest

from hand1000.config.base import FrozenSettings

RESAMPLES = 10_000
STATISTIC_RESAMPLES = 1000
"""Resamples of a statistic that is not a mean over the images, such as KID."""

_MAX_COUNTS = 4_000_000
"""Number of counts that are held at once; this bounds the memory."""

Statistic = Callable[[np.ndarray], np.ndarray]
"""Takes how often each of N images occurs in each of R resamples, (R, N), and returns the R values."""


Better = Literal["lower", "higher"]
"""Whether a lower or a higher value of a metric is better."""


class Estimate(FrozenSettings):
    """A value, or a difference of two, with the bounds of its 95 % interval."""

    value: float
    low: float
    high: float

    def is_loss(self, better: Better, tolerance: float = 0.0) -> bool:
        """Whether the whole interval of a difference is a loss of more than `tolerance`.

        Gates and the report's conclusions both use this definition.
        """
        return (-self.high if better == "higher" else self.low) > tolerance

    def is_gain(self, better: Better) -> bool:
        """Whether the whole interval of a difference is a gain."""
        return self.is_loss("lower" if better == "higher" else "higher")


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


def estimate_rate(successes: np.ndarray) -> Estimate:
    """The share of N successes, (N,) bool with N at least 1, with Wilson's interval."""
    bounds = binomtest(int(successes.sum()), len(successes)).proportion_ci(method="wilson")
    return Estimate(value=float(successes.mean()), low=float(bounds.low), high=float(bounds.high))


def estimate_rate_difference(first: np.ndarray, second: np.ndarray) -> Estimate:
    """The difference of two shares of the same N images, both (N,) bool, with Newcombe's interval for paired shares.

    It is his method 10 (Statistics in Medicine 17, 1998): Wilson's intervals of both shares, combined with the
    correlation of the pairs. Unlike the bootstrap's, it is not degenerate if few or no pairs are discordant.
    """
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    p, q = estimate_rate(first), estimate_rate(second)
    both, only_first, only_second, neither = (
        int(np.sum(cell)) for cell in (first & second, first & ~second, ~first & second, ~first & ~second)
    )
    margins = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    covariance = float(both * neither - only_first * only_second)
    if covariance > 0:
        covariance = max(covariance - len(first) / 2, 0.0)  # Newcombe's continuity correction
    correlation = covariance / np.sqrt(margins) if margins else 0.0

    def combine(a: float, b: float) -> float:
        return float(np.sqrt(max(a**2 - 2 * correlation * a * b + b**2, 0.0)))

    difference = p.value - q.value
    return Estimate(
        value=difference,
        low=difference - combine(p.value - p.low, q.high - q.value),
        high=difference + combine(p.high - p.value, q.value - q.low),
    )


def compute_mcnemar_p(first: np.ndarray, second: np.ndarray) -> float:
    """Compute McNemar's exact two-sided p-value that two shares of the same images, (N,) bool each, are equal."""
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    only_first, discordant = int(np.sum(first & ~second)), int(np.sum(first != second))
    return float(binomtest(only_first, discordant).pvalue) if discordant else 1.0


def resample_statistics(
    statistics: Mapping[str, Statistic], num_images: int, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """Evaluate the statistics of several models on the same resamples of their images.

    Returns:
        For each model R + 1 values, of which the first is that of the images themselves. NaN marks a resample on which
        a statistic is not defined.
    """
    values: dict[str, list[np.ndarray]] = {
        model: [statistic(np.ones((1, num_images)))] for model, statistic in statistics.items()
    }
    rows = max(1, _MAX_COUNTS // num_images)
    for start in range(0, STATISTIC_RESAMPLES, rows):
        size = min(rows, STATISTIC_RESAMPLES - start)
        counts = generator.multinomial(num_images, np.full(num_images, 1 / num_images), size).astype(np.float64)
        for model, statistic in statistics.items():
            values[model].append(statistic(counts))
    return {model: np.concatenate(parts) for model, parts in values.items()}


def summarize(values: np.ndarray) -> Estimate | None:
    """The first of the values of `resample_statistics`, or of a difference of two, with the percentiles of the others.

    None if it is not defined.
    """
    defined = values[1:][np.isfinite(values[1:])]
    if not np.isfinite(values[0]) or not len(defined):
        return None
    low, high = np.percentile(defined, [2.5, 97.5])
    return Estimate(value=float(values[0]), low=float(low), high=float(high))
