"""FID, KID and CMMD against closed forms, their definitions and torchmetrics."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from hand1000.evaluation import distances
from hand1000.evaluation.distances import clip_distance, frechet_distance, kernel_distance

SIDE = 4
DIMENSIONS = 3 * SIDE * SIDE


def _white(n: int, d: int) -> np.ndarray:
    """n samples whose mean is exactly 0 and whose covariance is exactly the identity."""
    x = np.random.default_rng(5).normal(size=(n, d))
    x -= x.mean(axis=0)
    return x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T


def test_frechet_distance_is_that_of_the_gaussians() -> None:
    x, scale, shift = _white(300, 6), np.array([0.5, 1.0, 2.0, 3.0, 1.0, 0.1]), np.arange(6) / 3
    # Between N(0, 1) and N(m, s^2) in each axis: m^2 + (1 - s)^2.
    assert frechet_distance(x, np.zeros((9, 6))) == pytest.approx(6.0, abs=1e-9)
    expected = np.sum(shift**2) + np.sum((1 - scale) ** 2)
    assert frechet_distance(x, x * scale + shift) == pytest.approx(expected, abs=1e-9)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
    assert frechet_distance(x @ rotation, (x * scale + shift) @ rotation) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("n", "m"), [(60, 40), (20, 15), (40, 15), (31, 30)])
def test_frechet_distance_is_the_formula_with_sqrtm(n: int, m: int) -> None:
    d = 30
    mix = np.random.default_rng(1).normal(size=(d, d))
    x, y = np.random.default_rng(2).normal(size=(n, d)), np.random.default_rng(3).normal(size=(m, d)) @ mix + 0.3
    s, t = np.cov(x.T), np.cov(y.T)
    expected = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(s + t - 2 * sqrtm(s @ t).real)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-4)
    assert frechet_distance(y, x) == pytest.approx(frechet_distance(x, y), rel=1e-10)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_does_not_depend_on_n_below_d() -> None:
    """Further axes that hold nothing change n >= d into n < d, not the distance."""
    x, y = np.random.default_rng(1).normal(size=(40, 8)), np.random.default_rng(2).normal(size=(30, 8)) + 1
    wide = np.pad(x, ((0, 0), (0, 92))), np.pad(y, ((0, 0), (0, 92)))
    assert frechet_distance(*wide) == pytest.approx(frechet_distance(x, y), rel=1e-10)


def _kid_by_loops(x: np.ndarray, y: np.ndarray) -> float:
    def k(a: np.ndarray, b: np.ndarray) -> float:
        return (float(a @ b) / len(a) + 1) ** 3

    def within(z: np.ndarray) -> float:
        return np.mean([k(z[i], z[j]) for i in range(len(z)) for j in range(len(z)) if i != j])

    return within(x) + within(y) - 2 * np.mean([k(a, b) for a in x for b in y])


def test_kernel_distance_is_its_definition() -> None:
    x, y = np.random.default_rng(1).normal(size=(7, 4)), np.random.default_rng(2).normal(size=(5, 4)) + 0.5
    estimate = kernel_distance(x, y, np.random.default_rng(0), 50)
    assert estimate.value == pytest.approx(_kid_by_loops(x, y), rel=1e-12)
    assert kernel_distance(y, x, np.random.default_rng(0), 50).value == pytest.approx(estimate.value, rel=1e-12)


def test_kernel_distance_has_no_bias() -> None:
    draws = [
        kernel_distance(*np.random.default_rng(seed).normal(size=(2, 20, 5)), np.random.default_rng(seed), 2).value
        for seed in range(600)
    ]
    assert abs(np.mean(draws)) < 3 * np.std(draws) / np.sqrt(len(draws))
    assert min(draws) < 0


def test_kernel_distance_interval_covers_the_true_value() -> None:
    """x = 0 and y = a (+1 or -1, evenly) in one dimension: E k(y, y') = 1 + 3 a^4, E k(x, .) = 1."""
    a, trials = 1.2, 200
    truth = 3 * a**4
    held = 0
    for seed in range(trials):
        generator = np.random.default_rng(seed)
        y = a * generator.choice([-1.0, 1.0], size=(60, 1)) * generator.uniform(0.9, 1.1, size=(60, 1))
        truth = 3 * (a**2 * (1 + 0.2**2 / 12)) ** 2
        estimate = kernel_distance(np.zeros((60, 1)), y + 1e-12, generator, 200)
        held += estimate.low <= truth <= estimate.high
    assert held / trials > 0.9
    x, y = np.random.default_rng(1).normal(size=(80, 5)), np.random.default_rng(2).normal(size=(80, 5)) + 0.5
    first, second = (kernel_distance(x, y, np.random.default_rng(4), 300) for _ in range(2))
    assert first == second and 0 < first.low < first.value < first.high < 2 * first.value


def test_kernels_in_pieces_give_the_same_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(50, 4)), generator.normal(size=(41, 4)) + 0.5

    def compute() -> list[float]:
        kid = kernel_distance(x, y, np.random.default_rng(0), resamples=20)
        return [kid.value, kid.low, kid.high, clip_distance(x, y)]

    whole = compute()
    monkeypatch.setattr(distances, "_KERNEL_ROWS", 7)
    assert np.allclose(compute(), whole, rtol=1e-10)


def test_distances_refuse_invalid_shapes() -> None:
    for x, y in [(np.zeros((1, 3)), np.zeros((4, 3))), (np.zeros((4, 3)), np.zeros((4, 2)))]:
        with pytest.raises(ValueError, match="at least 2"):
            frechet_distance(x, y)
        with pytest.raises(ValueError, match="at least 2"):
            kernel_distance(x, y, np.random.default_rng(0))


def test_cmmd_is_its_definition() -> None:
    draws = np.random.default_rng(0)
    x, y = draws.normal(size=(5, 6)), draws.normal(size=(7, 6))
    total = 0.0
    for first, second, weight in ((x, x, 1), (y, y, 1), (x, y, -2)):
        for a in first:
            for b in second:
                a_, b_ = a / np.linalg.norm(a), b / np.linalg.norm(b)
                total += weight * np.exp(-np.sum((a_ - b_) ** 2) / 200) / (len(first) * len(second))
    assert clip_distance(x, y) == pytest.approx(1000 * total)
    assert clip_distance(x, 3 * x) == pytest.approx(0, abs=1e-9)


class PixelFeatures(torch.nn.Module):
    """A replacement of Inception: the pixels are the features."""

    num_features = DIMENSIONS

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) to (N, D)."""
        return images.flatten(1).double() / 255


@pytest.fixture(params=[(200, 150), (30, 40)], ids=["more than dimensions", "fewer"])
def image_sets(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    """Two image sets of different mean and variance."""
    draws = np.random.default_rng(0)
    real, fake = request.param
    shape = (3, SIDE, SIDE)
    return draws.integers(0, 256, (real, *shape), np.uint8), draws.integers(20, 200, (fake, *shape), np.uint8)


def flat_features(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1) / 255


def test_fid_equals_that_of_torchmetrics(image_sets) -> None:
    metric = FrechetInceptionDistance(feature=PixelFeatures(), input_img_size=(3, SIDE, SIDE)).set_dtype(torch.float64)
    for part, real in zip(image_sets, (True, False), strict=True):
        metric.update(torch.from_numpy(part), real=real)
    assert frechet_distance(*map(flat_features, image_sets)) == pytest.approx(float(metric.compute()), rel=1e-4)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`")
def test_kid_equals_that_of_torchmetrics(image_sets) -> None:
    size = min(map(len, image_sets))  # torchmetrics averages over subsets; here is one, of the size of the smaller set.
    parts = [part[:size] for part in image_sets]
    metric = KernelInceptionDistance(feature=PixelFeatures(), subsets=1, subset_size=size)
    for part, real in zip(parts, (True, False), strict=True):
        metric.update(torch.from_numpy(part), real=real)
    value = kernel_distance(*map(flat_features, parts), np.random.default_rng(0), resamples=2).value
    assert value == pytest.approx(float(metric.compute()[0]), rel=1e-4)
