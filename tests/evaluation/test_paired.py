"""The paired comparison of two methods."""

import numpy as np
import pytest

from hand1000.evaluation.paired import paired_bootstrap


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
