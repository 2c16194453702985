"""FID and KID against torchmetrics' on the same features."""

import numpy as np
import pytest
import torch
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from hand1000.evaluation.distances import frechet_distance, kernel_distance

SIDE = 4
DIMENSIONS = 3 * SIDE * SIDE


class AsTheyAre(torch.nn.Module):
    """In place of Inception: the pixels are the features."""

    num_features = DIMENSIONS

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) to (N, D)."""
        return pictures.flatten(1).double() / 255


@pytest.fixture(params=[(200, 150), (30, 40)], ids=["more than dimensions", "fewer"])
def pictures(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of other mean and spread."""
    draws = np.random.default_rng(0)
    real, fake = request.param
    shape = (3, SIDE, SIDE)
    return draws.integers(0, 256, (real, *shape), np.uint8), draws.integers(20, 200, (fake, *shape), np.uint8)


def features(pictures: np.ndarray) -> np.ndarray:
    return pictures.reshape(len(pictures), -1) / 255


def test_fid_is_theirs(pictures) -> None:
    metric = FrechetInceptionDistance(feature=AsTheyAre(), input_img_size=(3, SIDE, SIDE)).set_dtype(torch.float64)
    for part, real in zip(pictures, (True, False), strict=True):
        metric.update(torch.from_numpy(part), real=real)
    assert frechet_distance(*map(features, pictures)) == pytest.approx(float(metric.compute()), rel=1e-4)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`")
def test_kid_is_theirs(pictures) -> None:
    size = min(map(len, pictures))  # Theirs draws subsets of one size; this is all of the smaller set, in one of them.
    parts = [part[:size] for part in pictures]
    metric = KernelInceptionDistance(feature=AsTheyAre(), subsets=1, subset_size=size)
    for part, real in zip(parts, (True, False), strict=True):
        metric.update(torch.from_numpy(part), real=real)
    value = kernel_distance(*map(features, parts), np.random.default_rng(0), resamples=2).value
    assert value == pytest.approx(float(metric.compute()[0]), rel=1e-4)
