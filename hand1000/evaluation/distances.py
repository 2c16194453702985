"""Distances between two sets of image features: FID, KID and CMMD.

x, y   features of the real and of the generated images      (n, d), (m, d), n and m at least 2
mu, S  their mean and their covariance with divisor n - 1    (d,), (d, d)
k      the kernel of KID, (x.y/d + 1)^3
"""

import numpy as np
from scipy.linalg import qr, svdvals

from hand1000.config.base import FrozenSettings


def frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    """|mu_x - mu_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^(1/2)), exact in float64 (Heusel et al., arXiv 1706.08500).

    With A = (x - mu_x)/sqrt(n - 1), S_x = A'A, and B likewise, the trace of the root is the sum of the singular
    values of A B'. This avoids a matrix square root, so that a singular covariance (n < d) needs no regularization.
    The estimate has a bias of about 1/n: compare only values of equal n.
    """
    x, y = _validated(x, y)
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    a, b = (x - mean_x) / np.sqrt(len(x) - 1), (y - mean_y) / np.sqrt(len(y) - 1)
    cross = svdvals(_short(a) @ _short(b).T).sum()
    return float(max(0.0, np.sum((mean_x - mean_y) ** 2) + np.sum(a**2) + np.sum(b**2) - 2.0 * cross))


def _short(a: np.ndarray) -> np.ndarray:
    """A matrix R of at most d rows with R'R = a'a. Omitting the rotation does not change the singular values."""
    return qr(a, mode="r", check_finite=False)[0][: a.shape[1]] if len(a) > a.shape[1] else a


class Distance(FrozenSettings):
    """KID with the bounds of its 95 % interval. It may be negative."""

    value: float
    low: float
    high: float


def kernel_distance(x: np.ndarray, y: np.ndarray, generator: np.random.Generator, resamples: int = 1000) -> Distance:
    """KID: the unbiased squared MMD with k(a, b) = (a.b/d + 1)^3 (Binkowski et al., arXiv 1801.01401).

    The estimate may be negative if the sets hardly differ; clipping it would cause a bias. The interval is a percentile
    bootstrap over the images. An image that a resample contains twice is never paired with itself, because that would
    make the set look more concentrated than it is.
    """
    x, y = _validated(x, y)
    # A resample is a row of counts, one per image. The first row contains every image once: the estimate itself.
    v = _counts(len(x), resamples, generator)
    w = _counts(len(y), resamples, generator)
    within_x = _sum_kernel(x, x, v, v, within=True) / _num_pairs(v)
    within_y = _sum_kernel(y, y, w, w, within=True) / _num_pairs(w)
    values = within_x + within_y - 2.0 * _sum_kernel(x, y, v, w) / (len(x) * len(y))
    low, high = np.percentile(values[1:], [2.5, 97.5])
    return Distance(value=float(values[0]), low=float(low), high=float(high))


# 330 MB of the kernel of 10,000 images; fewer images have it in one piece.
_KERNEL_ROWS = 4096


def _sum_kernel(x: np.ndarray, y: np.ndarray, v: np.ndarray, w: np.ndarray, *, within: bool = False) -> np.ndarray:
    """The sum (R,) of v_i k(x_i, y_j) w_j for each row of the counts v (R, n) and w (R, m).

    `within` a set, an image is not paired with itself.
    """
    total = np.zeros(len(v))
    for start in range(0, len(x), _KERNEL_ROWS):
        rows = slice(start, start + _KERNEL_ROWS)
        kernel = (x[rows] @ y.T / x.shape[1] + 1) ** 3
        if within:
            np.fill_diagonal(kernel[:, rows], 0.0)
        total += np.sum((v[:, rows] @ kernel) * w, axis=1)
    return total


_CMMD_SIGMA, _CMMD_SCALE = 10.0, 1000.0


def clip_distance(x: np.ndarray, y: np.ndarray) -> float:
    """CMMD (Jayasumana et al., 2024): the squared MMD of CLIP's unit embeddings with a Gaussian kernel, times 1,000.

    This is the biased estimate, which includes the diagonal of the kernel, as in the authors' program.
    """
    x, y = (features / np.linalg.norm(features, axis=1, keepdims=True) for features in _validated(x, y))

    def mean_kernel(a: np.ndarray, b: np.ndarray) -> float:
        total = 0.0
        for start in range(0, len(a), _KERNEL_ROWS):
            rows = a[start : start + _KERNEL_ROWS]
            squared = np.maximum(np.sum(rows**2, axis=1)[:, None] + np.sum(b**2, axis=1) - 2 * rows @ b.T, 0.0)
            total += float(np.exp(-squared / (2 * _CMMD_SIGMA**2)).sum())
        return total / (len(a) * len(b))

    return _CMMD_SCALE * (mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y))


def _counts(n: int, resamples: int, generator: np.random.Generator) -> np.ndarray:
    return np.concatenate([np.ones((1, n)), generator.multinomial(n, np.full(n, 1.0 / n), resamples)])


def mean_pairs(kernel: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The mean of `kernel` (N, N) over all pairs of different images, for each row of `counts` (R, N).

    The diagonal of the kernel must be 0.
    """
    return np.sum((counts @ kernel) * counts, axis=1) / _num_pairs(counts)


def _num_pairs(counts: np.ndarray) -> np.ndarray:
    """The number (R,) of ordered pairs of different images in each row of `counts` (R, N), at least 1."""
    return np.maximum(np.sum(counts, axis=1) ** 2 - np.sum(counts**2, axis=1), 1.0)


def _validated(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    for features in (x, y):
        if features.ndim != 2 or len(features) < 2 or features.shape[1] != x.shape[1]:
            raise ValueError(
                f"two sets of at least 2 features of equal length are required, not {x.shape} and {y.shape}"
            )
    return x.astype(np.float64), y.astype(np.float64)
