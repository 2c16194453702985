"""FID and KID from features of 1,000 images beside the packages that most papers use.

pytorch-fid's formula is written here, since its script imports torchvision: the matrix square root of the product of
both covariances, regularized where they are singular.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.published import find_script, load_parts
from benchmarks.rows import BenchOptions, Comparison, Row, measure_row
from hand1000.evaluation.distances import frechet_distance, kernel_distance
from hand1000.paper.metrics import paper_kid

_IMAGES, _FEATURES = 1000, 2048
_EPS = 1e-6


def measure_rows(options: BenchOptions) -> Iterator[Row]:
    """Yield the rows of FID and KID."""
    images, features = (40, 32) if options.short else (_IMAGES, _FEATURES)
    generator = np.random.default_rng(0)
    x, y = (generator.gamma(0.5, 0.7, (images, features)).astype(np.float32) for _ in range(2))
    y *= np.float32(1.1)
    size = f"{images:,} x {features:,} features"
    yield measure_row(
        Comparison(
            f"FID from {size}",
            "torchmetrics",
            run_product=lambda: frechet_distance(x, y),
            run_peer=lambda: _measure_by_torchmetrics("FrechetInceptionDistance", x, y),
            is_equal=_is_close,
            goal=8,
        ),
        options,
    )
    published = find_script(options.peers, "cal_fid.py")
    yield measure_row(
        Comparison(
            f"FID from {size}",
            "the authors' cal_fid.py, its function" if published else "pytorch-fid's formula",
            run_product=lambda: frechet_distance(x, y),
            run_peer=lambda: _measure_by_authors_fid(published, x, y) if published else _measure_by_root(x, y),
            is_equal=_is_close,
            goal=30,
        ),
        options,
    )
    yield measure_row(
        Comparison(
            f"KID with its interval from {size}",
            "torchmetrics, 100 subsets",
            run_product=lambda: kernel_distance(x, y, np.random.default_rng(0)).value,
            run_peer=lambda: _measure_by_torchmetrics("KernelInceptionDistance", x, y, subset_size=images),
            is_equal=_is_close,
            goal=15,
        ),
        options,
    )

    if published := find_script(options.peers, "cal_kid.py"):
        yield measure_row(
            Comparison(
                f"the authors' KID from {size}",
                "their cal_kid.py, its function",
                run_product=lambda: paper_kid(x, y, np.random.default_rng(0)),
                run_peer=lambda: _measure_by_authors_kid(published, x, y),
                is_equal=_is_close,
            ),
            options,
        )


def _measure_by_authors_fid(script: Path, x: np.ndarray, y: np.ndarray) -> float:
    from scipy.linalg import sqrtm

    function = load_parts(script, ("calculate_frechet_distance",), {"np": np, "sqrtm": sqrtm})
    # The script has float64 features, and passes means and covariances.
    sides = [(a.mean(axis=0), np.cov(a, rowvar=False)) for a in (x.astype(np.float64), y.astype(np.float64))]
    return float(function["calculate_frechet_distance"](*sides[0], *sides[1]))


def _measure_by_authors_kid(script: Path, x: np.ndarray, y: np.ndarray) -> float:
    parts = load_parts(script, ("polynomial_kernel", "calculate_kid"), {"np": np})
    return float(parts["calculate_kid"](x.astype(np.float64), y.astype(np.float64))[0])


def _is_close(ours: float, theirs: float) -> bool:
    # torchmetrics sums in float32 where it computes KID, and pytorch-fid adds 1e-6 to the diagonals.
    return bool(np.isclose(ours, theirs, rtol=2e-3))


def _measure_by_torchmetrics(name: str, x: np.ndarray, y: np.ndarray, **options: Any) -> float:
    import torch
    from torchmetrics.image import fid, kid

    class Features(torch.nn.Module):
        """Stands in for the network, as the features are there already."""

        num_features = x.shape[1]

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images

    metric = getattr(kid if name.startswith("Kernel") else fid, name)(feature=Features(), **options)
    metric.update(torch.from_numpy(x), real=True)
    metric.update(torch.from_numpy(y), real=False)
    value = metric.compute()
    return float(value[0] if isinstance(value, tuple) else value)


def _measure_by_root(x: np.ndarray, y: np.ndarray) -> float:
    from scipy.linalg import sqrtm

    means, covariances = [a.mean(axis=0) for a in (x, y)], [np.cov(a, rowvar=False) for a in (x, y)]
    root = sqrtm(covariances[0] @ covariances[1])
    if not np.isfinite(root).all():
        offset = _EPS * np.eye(x.shape[1])
        root = sqrtm((covariances[0] + offset) @ (covariances[1] + offset))
    trace = np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * np.trace(root).real
    return float(np.sum((means[0] - means[1]) ** 2) + trace)
