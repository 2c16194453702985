"""The paired comparison of two methods."""

import numpy as np
import pytest

from hand1000.evaluation.distances import kernel_distance
from hand1000.evaluation.neighbors import intra_prompt_distance
from hand1000.evaluation.paired import estimate_rate_difference, paired_bootstrap, resample_statistics, summarize
from hand1000.evaluation.statistics import make_intra_prompt_distance, make_kid, make_kid_to_base, make_ratio


def test_paired_difference_is_significant_if_rare_by_chance() -> None:
    generator = np.random.default_rng(0)
    difficulty = generator.random(200)  # Some prompts are difficult for both methods.
    second = (difficulty + 0.1 * generator.normal(size=200) > 0.5).astype(float)
    first = (difficulty + 0.1 * generator.normal(size=200) > 0.35).astype(float)
    difference = paired_bootstrap(first, second, generator)
    assert difference.low < difference.mean < difference.high and difference.low > 0 and difference.p < 0.001
    assert difference.mean == pytest.approx(first.mean() - second.mean())
    # The interval of each rate alone is 0.14 wide; pairs give a narrower one.
    assert difference.high - difference.low < 0.12
    equal_methods = [
        paired_bootstrap(*generator.integers(0, 2, (2, 100)).astype(float), generator).p for _ in range(40)
    ]
    assert sum(p < 0.05 for p in equal_methods) <= 6 and max(equal_methods) <= 1
    assert paired_bootstrap(first, first, generator).p == 1
    with pytest.raises(ValueError, match="3 and 2"):
        paired_bootstrap([1, 2, 3], [1, 2], generator)


def test_newcombe_interval_covers_the_difference_of_paired_rates() -> None:
    generator, covered = np.random.default_rng(1), 0
    difficulty = generator.random(1_000_000)
    true = float(np.mean(difficulty < 0.9) - np.mean(difficulty + 0.2 * generator.normal(size=1_000_000) < 0.8))
    for _ in range(400):
        difficulty = generator.random(60)
        first, second = difficulty < 0.9, (difficulty + 0.2 * generator.normal(size=60)) < 0.8
        interval = estimate_rate_difference(first, second)
        covered += interval.low <= true <= interval.high
    assert covered >= 0.93 * 400


def test_newcombe_interval_is_antisymmetric_and_never_empty() -> None:
    first, second = np.arange(20) < 15, np.arange(20) % 2 == 0
    forward, backward = estimate_rate_difference(first, second), estimate_rate_difference(second, first)
    assert (forward.low, forward.high) == pytest.approx((-backward.high, -backward.low))
    same = estimate_rate_difference(first, first)
    assert same.value == 0 and same.low < 0 < same.high < 0.3
    ones = np.ones(6, bool)
    assert estimate_rate_difference(ones, ~ones).low > 0.2
    # Newcombe's table of 1998, method 10: 50 pairs, 36 + 12 and 36 + 2 successes.
    a, b = np.repeat([True, True, False, False], [36, 12, 2, 0]), np.repeat([True, False, True, False], [36, 12, 2, 0])
    interval = estimate_rate_difference(a, b)
    assert (interval.low, interval.value, interval.high) == pytest.approx((0.0569, 0.2, 0.3404), abs=5e-5)


def test_statistics_of_all_images_are_the_metrics_themselves() -> None:
    generator = np.random.default_rng(2)
    real, fake = generator.normal(size=(2, 30, 4))
    prompts = [f"prompt {index // 3}" for index in range(30)]
    once = np.ones((1, 30))
    kid = make_kid(real, fake, np.arange(30))
    assert kid(once)[0] == pytest.approx(kernel_distance(real, fake, generator).value)
    distance = make_intra_prompt_distance(fake, prompts)
    assert distance is not None and distance(once)[0] == pytest.approx(intra_prompt_distance(fake, prompts))
    assert make_intra_prompt_distance(fake, [str(index) for index in range(30)]) is None
    # An image that a resample repeats is like a set in which it occurs twice, but never a pair with itself.
    twice = once + np.eye(1, 30)
    assert np.isnan(make_kid(real, fake[:1], np.zeros(1, int))(twice)[0])
    assert distance(twice)[0] != distance(once)[0]
    assert make_kid_to_base(fake, fake)(twice)[0] == pytest.approx(0, abs=1e-12)
    assert make_ratio(np.array([1.0, 0.0]), np.array([2.0, 0.0]))(np.array([[1, 1], [0, 2]])).tolist()[0] == 0.5


def test_a_statistic_without_a_value_has_no_estimate() -> None:
    generator = np.random.default_rng(3)
    nothing = make_ratio(np.zeros(5), np.zeros(5))
    ratio = make_ratio(np.arange(5.0), np.ones(5))
    values = resample_statistics({"tuned": nothing, "base": ratio}, 5, generator)
    assert summarize(values["tuned"]) is None
    estimate = summarize(values["base"])
    assert estimate is not None and estimate.value == 2 and 0.5 < estimate.low < 2 < estimate.high < 3.5
    again = resample_statistics({"base": ratio}, 5, np.random.default_rng(3))
    assert np.array_equal(again["base"], values["base"])
