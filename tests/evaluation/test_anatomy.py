"""Plausibility of hands."""

import numpy as np

from hand1000.evaluation.anatomy import MIN_REFERENCE_HANDS, compute_hand_shapes, fit_anatomy


def hands(count: int, seed: int) -> np.ndarray:
    """Hands of one person with random poses, (count, 21, 3)."""
    draws = np.random.default_rng(seed)
    landmarks = np.zeros((count, 21, 3))
    for finger in range(5):
        start = np.array([0.15 * (finger - 2), 0.5, 0.0])
        for joint in range(4):
            bend = draws.normal(0.1, 0.05, (count, 3)) * [1, 0, 1]
            step = start if joint == 0 else np.array([0.0, 0.15, 0.0])
            before = landmarks[:, 0] if joint == 0 else landmarks[:, 4 * finger + joint]
            landmarks[:, 4 * finger + joint + 1] = before + step * draws.normal(1, 0.03, (count, 1)) + 0.05 * bend
    return landmarks


def test_implausible_hands_are_recognized() -> None:
    real = hands(200, 0)
    anatomy = fit_anatomy(real)
    assert anatomy is not None and anatomy.find_implausible(hands(200, 1)).mean() < 0.05
    # Position, scale and rotation make no difference.
    turned = real @ np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0] * 3 + 7
    assert np.allclose(compute_hand_shapes(turned), compute_hand_shapes(real))
    long = hands(200, 3)
    long[:, 8] += 3 * (long[:, 8] - long[:, 7])  # The index finger's last bone, four times as long.
    swapped = hands(200, 4)
    swapped[:, [8, 20]] = swapped[:, [20, 8]]  # Its tip at the little finger's place.
    assert anatomy.find_implausible(long).mean() > 0.95 and anatomy.find_implausible(swapped).mean() > 0.95
    assert fit_anatomy(real[: MIN_REFERENCE_HANDS - 1]) is None
