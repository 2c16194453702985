"""Calibration of the gesture classifier: a temperature, a threshold below which a hand is rejected, and its error."""

import numpy as np
import torch

BINS = 10
"""Number of equal intervals of probability of the expected calibration error."""


def fit_temperature(logits: torch.Tensor, targets: torch.Tensor) -> float:
    """Return the temperature with the least cross-entropy on held-out hands, to 3 digits.

    `logits` is (N, C), `targets` (N,). A grid search is exact enough and has no settings (Guo et al., "On calibration
    of modern neural networks", ICML 2017, section 4.2).
    """
    grid = torch.exp(torch.linspace(np.log(0.25), np.log(4.0), 141, dtype=torch.float64))
    losses = [float(torch.nn.functional.cross_entropy(logits.double() / value, targets)) for value in grid]
    return round(float(grid[int(np.argmin(losses))]), 3)


def choose_threshold(probabilities: np.ndarray, correct: np.ndarray, max_rejected: float = 0.005) -> float:
    """Return the highest threshold that rejects at most `max_rejected` of the correctly named hands, to 3 digits.

    `probabilities` (N,) are those of the most likely gestures, `correct` (N,) bool whether these are right.
    """
    values = np.sort(probabilities[correct])
    if not len(values):
        return 0.0
    return float(np.floor(1000.0 * values[int(max_rejected * len(values))]) / 1000.0)


def calibration_error(probabilities: np.ndarray, correct: np.ndarray) -> float:
    """Return the expected calibration error, 0 to 1: how far probability and share of right names are apart.

    `probabilities` (N,) are those of the most likely gestures, `correct` (N,) bool whether these are right.
    """
    bins = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    error = 0.0
    for index in range(BINS):
        members = bins == index
        if members.any():
            error += members.mean() * abs(probabilities[members].mean() - correct[members].mean())
    return float(error)
