"""The distance of two models' hands, and the distance that equal models have."""

import numpy as np
import pytest

from hand1000.evaluation.pair_kernel import PairKernel
from hand1000.evaluation.statistics import kid_kernel, make_kid_to_base

N, D = 40, 6


def make_features(seed: int, shift: float = 0.0, count: int = N) -> np.ndarray:
    return shift + np.random.default_rng(seed).normal(size=(count, D))


def make_kernel(first: np.ndarray, second: np.ndarray) -> PairKernel:
    return PairKernel.of(first, np.arange(N), second, np.arange(N), N)


def test_one_hand_an_image_is_the_distance_of_images() -> None:
    first, second = make_features(1), make_features(2, shift=0.4)
    counts = np.random.default_rng(3).multinomial(N, np.full(N, 1 / N), 5).astype(float)
    distances = make_kernel(first, second).distance(counts)
    assert distances == pytest.approx(make_kid_to_base(first, second)(counts))


def test_hands_of_one_image_are_never_paired() -> None:
    first, second = make_features(1, count=5), make_features(2, count=4)
    first_image, second_image = np.array([0, 0, 1, 2, 2]), np.array([0, 1, 1, 3])
    kernel = PairKernel.of(first, first_image, second, second_image, 4)

    def mean(x: np.ndarray, of_x: np.ndarray, y: np.ndarray, of_y: np.ndarray) -> float:
        return float(kid_kernel(x, y)[of_x[:, None] != of_y[None, :]].mean())

    expected = mean(first, first_image, first, first_image) + mean(second, second_image, second, second_image)
    expected -= 2 * mean(first, first_image, second, second_image)
    assert kernel.distance(np.ones((1, 4))) == pytest.approx([expected])


def test_equal_models_are_within_the_null_and_others_beyond() -> None:
    inside = 0
    for seed in range(40):
        kernel = make_kernel(make_features(2 * seed), make_features(2 * seed + 1))
        null = kernel.null_distance(np.random.default_rng(seed))
        assert null is not None and null.low < 0 < null.high
        inside += null.low <= kernel.distance(np.ones((1, N)))[0] <= null.high
    assert inside >= 34  # 38 are expected.
    kernel = make_kernel(make_features(1), make_features(2, shift=0.8))
    null = kernel.null_distance(np.random.default_rng(0))
    assert null is not None and kernel.distance(np.ones((1, N)))[0] > 2 * null.high


def test_an_exchange_swaps_the_images_of_both_models() -> None:
    first, second = make_features(1, count=6), make_features(2, count=6)
    kernel = PairKernel.of(first, np.arange(6), second, np.arange(6), 6)
    null = kernel.null_distance(np.random.default_rng(7))
    values = []
    for stays in np.random.default_rng(7).integers(0, 2, (1000, 6)).astype(bool):
        swapped = np.where(stays[:, None], first, second), np.where(stays[:, None], second, first)
        values.append(make_kid_to_base(*swapped)(np.ones((1, 6)))[0])
    assert null is not None
    assert (null.value, null.low, null.high) == pytest.approx((np.mean(values), *np.percentile(values, [2.5, 97.5])))


def test_too_few_hands_have_no_distance() -> None:
    kernel = PairKernel.of(make_features(1, count=1), np.array([0]), make_features(2, count=1), np.array([1]), 3)
    assert np.isnan(kernel.distance(np.ones((1, 3)))).all() and kernel.null_distance(np.random.default_rng(0)) is None
