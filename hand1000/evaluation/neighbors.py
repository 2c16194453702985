"""Distances between image features: within a prompt, and to the training images."""

from collections.abc import Sequence

import numpy as np
from scipy.spatial.distance import cdist, pdist

_MAX_IMAGES_PER_PROMPT = 5000
"""Number of images of one prompt whose pairs are compared; this bounds the memory."""


def intra_prompt_distance(features: np.ndarray, prompts: Sequence[str]) -> float | None:
    """Mean distance of the features (N, D) of two images of the same prompt; None if no prompt has two images."""
    pairs = [pdist(features[rows].astype(np.float64)) for rows in group_by_prompt(prompts)]
    return float(np.concatenate(pairs).mean()) if pairs else None


def group_by_prompt(prompts: Sequence[str]) -> list[list[int]]:
    """The indices of the images of each prompt that has at least two, of very many only the first."""
    rows: dict[str, list[int]] = {}
    for row, prompt in enumerate(prompts):
        rows.setdefault(prompt, []).append(row)
    return [prompt_rows[:_MAX_IMAGES_PER_PROMPT] for prompt_rows in rows.values() if len(prompt_rows) > 1]


def memorization_limit(real: np.ndarray, train: np.ndarray) -> float:
    """The distance to the nearest training image that 95 % of unseen real images exceed; all features are (N, D).

    The memorization rate is the share of generated images below it. Unseen images score 0.05; a model that copies its
    training images scores far more.
    """
    return float(np.quantile(nearest_distances(real, train), 0.05))


def nearest_distances(features: np.ndarray, references: np.ndarray) -> np.ndarray:
    """The distance (N,) of each of the features (N, D) to the nearest of the references (M, D)."""
    return find_nearest(features, references)[1]


def find_nearest(features: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The index (N,) of the nearest of the references (M, D) to each of the features (N, D), and its distance (N,)."""
    indices, distances = [np.zeros(0, np.int64)], [np.zeros(0)]
    for start in range(0, len(features), 256):
        chunk = cdist(features[start : start + 256], references)
        indices.append(chunk.argmin(axis=1))
        distances.append(chunk.min(axis=1))
    return np.concatenate(indices), np.concatenate(distances)
