"""How far pictures are from each other and from those that were trained on, by their features."""

from collections.abc import Sequence

import numpy as np
from scipy.spatial.distance import cdist, pdist

_MOST = 5000
"""Pictures whose pairs are all looked at; more would only fill memory."""


def intra_prompt_distance(features: np.ndarray, prompts: Sequence[str]) -> float | None:
    """Mean distance between two pictures of one prompt.

    Args:
        features: (N, D).
        prompts: N.

    Returns:
        0 where a prompt always gives the same picture; None where no prompt has two.
    """
    rows: dict[str, list[int]] = {}
    for row, prompt in enumerate(prompts):
        rows.setdefault(prompt, []).append(row)
    pairs = [pdist(features[some[:_MOST]].astype(np.float64)) for some in rows.values() if len(some) > 1]
    return float(np.concatenate(pairs).mean()) if pairs else None


def memorization_rate(fake: np.ndarray, real: np.ndarray, train: np.ndarray) -> float:
    """The share of generated pictures that lie nearer to a training image than 95 in 100 unseen real ones do.

    0.05 is what unseen pictures have; a model that repeats its training images has far more.

    Args:
        fake, real, train: features of the generated, the held-out and the training pictures, (N, D) each.
    """
    limit = np.quantile(nearest_distances(real, train), 0.05)
    return float(np.mean(nearest_distances(fake, train) < limit))


def nearest_distances(these: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The distance of each of (N, D) to the nearest of (M, D), (N,)."""
    parts = [cdist(these[start : start + 256], others).min(axis=1) for start in range(0, len(these), 256)]
    return np.concatenate(parts)
