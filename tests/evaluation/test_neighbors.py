"""Distances within a prompt and to the training images."""

import numpy as np
import pytest

from hand1000.evaluation.neighbors import intra_prompt_distance, memorization_limit, nearest_distances


def test_intra_prompt_distance_compares_images_of_one_prompt() -> None:
    features = np.array([[0.0], [3.0], [10.0], [10.0]])
    assert intra_prompt_distance(features, ["a", "a", "b", "b"]) == pytest.approx(1.5)
    assert intra_prompt_distance(features, list("abcd")) is None


def test_copies_of_training_images_are_memorized() -> None:
    draws = np.random.default_rng(0)
    train, real, fresh = (draws.normal(size=(300, 8)) for _ in range(3))
    limit = memorization_limit(real, train)
    assert (nearest_distances(train + 1e-6, train) < limit).all()
    assert np.mean(nearest_distances(fresh, train) < limit) < 0.15
