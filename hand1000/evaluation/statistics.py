"""Statistics of a set of images that `paired.resample_statistics` evaluates on resamples of the images."""

from collections.abc import Sequence

import numpy as np
from scipy.spatial.distance import cdist

from hand1000.evaluation.distances import mean_pairs
from hand1000.evaluation.neighbors import group_by_prompt
from hand1000.evaluation.paired import Statistic


def make_ratio(numerators: np.ndarray, denominators: np.ndarray) -> Statistic:
    """The sum of N numerators divided by that of N denominators, such as implausible hands by all hands."""

    def ratio(counts: np.ndarray) -> np.ndarray:
        totals = counts @ denominators
        return np.divide(counts @ numerators, totals, out=np.full(len(counts), np.nan), where=totals > 0)

    return ratio


def make_kid(real: np.ndarray, fake: np.ndarray, image_index: np.ndarray) -> Statistic:
    """KID of fixed real features (n, d) and generated ones (m, d), each of the image with its index, (m,).

    See `distances.kernel_distance`; NaN without two different features of each set.
    """
    real, fake = real.astype(np.float64), fake.astype(np.float64)
    kernel, cross = kid_kernel(fake, fake), kid_kernel(real, fake).mean(axis=0) if len(real) else np.zeros(len(fake))
    np.fill_diagonal(kernel, 0.0)
    within_real = kid_kernel(real, real)
    np.fill_diagonal(within_real, 0.0)
    constant = within_real.sum() / max(len(real) * (len(real) - 1), 1)

    def kid(counts: np.ndarray) -> np.ndarray:
        weights = counts[:, image_index]
        totals = weights.sum(axis=1)
        defined = (totals**2 > np.sum(weights**2, axis=1)) & (len(real) > 1)
        values = constant + mean_pairs(kernel, weights) - 2.0 * (weights @ cross) / np.maximum(totals, 1.0)
        return np.where(defined, values, np.nan)

    return kid


def make_kid_to_base(base: np.ndarray, other: np.ndarray) -> Statistic:
    """KID of two models' images of the same N prompts and seeds, features (N, d) each.

    An image is never paired with the other model's image of its own prompt and seed: that pair is more alike than two
    independent images, and equal models would have a negative distance.
    """
    base, other = base.astype(np.float64), other.astype(np.float64)
    cross = kid_kernel(base, other)
    kernel = kid_kernel(base, base) + kid_kernel(other, other) - cross - cross.T
    np.fill_diagonal(kernel, 0.0)
    return lambda counts: mean_pairs(kernel, counts)


def make_intra_prompt_distance(features: np.ndarray, prompts: Sequence[str]) -> Statistic | None:
    """See `neighbors.intra_prompt_distance`; None if no prompt has two images."""
    blocks = [(rows, cdist(*[features[rows].astype(np.float64)] * 2)) for rows in group_by_prompt(prompts)]
    if not blocks:
        return None

    def distance(counts: np.ndarray) -> np.ndarray:
        totals, pairs = np.zeros((2, len(counts)))
        for rows, distances in blocks:
            weights = counts[:, rows]
            totals += np.sum((weights @ distances) * weights, axis=1)
            # A repeated image is not paired with itself.
            pairs += weights.sum(axis=1) ** 2 - np.sum(weights**2, axis=1)
        return np.divide(totals, pairs, out=np.full(len(counts), np.nan), where=pairs > 0)

    return distance


def kid_kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The kernel of KID of each two features (n, d) and (m, d), as (n, m)."""
    return (x @ y.T / x.shape[1] + 1) ** 3
