"""The cost of a gesture from counted operations."""

import pytest

from benchmarks.cost import Counts, count_operations, stage_operations
from hand1000.config.settings import load_settings


@pytest.fixture(scope="module")
def counts() -> Counts:
    return count_operations()


def test_the_counts_are_those_of_stable_diffusion(counts: Counts) -> None:
    """The forward pass has 0.4 T multiplications at 512 px, as published; twice that a backward pass."""
    assert counts.forward == pytest.approx(0.8e12, rel=0.01)
    assert counts.train == pytest.approx(3 * counts.forward, rel=0.01)
    assert 2 * counts.forward < counts.backpropagate < 2.2 * counts.forward


def test_what_is_not_done_costs_nothing(counts: Counts) -> None:
    full, fast = (stage_operations(load_settings(preset), 1000, counts) for preset in ("default", "fast"))
    assert fast["Stage II, embeddings"] == 0 < full["Stage II, embeddings"]
    assert full["Stage III"] == pytest.approx(5000 * 4 * counts.train)
    assert fast["Stage III"] == pytest.approx(2000 * 4 * counts.backpropagate)
    assert sum(fast.values()) < sum(full.values()) / 2
