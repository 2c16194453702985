"""FID and KID as the authors' scripts compute them, for comparison with their numbers.

Their errors are kept (docs/method.md): a small number is added where the root of a matrix is complex, and KID includes
the similarity of every image to itself. Their features are those of torchvision's ImageNet Inception instead of the
2015 Inception; `evaluation.feature_extractor` accepts either as TorchScript.
"""

import numpy as np
from scipy.linalg import sqrtm

_EPSILON = 1e-6
_SUBSETS, _SUBSET_SIZE = 100, 1000


def paper_fid(x: np.ndarray, y: np.ndarray) -> float:
    """Compute the authors' FID of features (n, d) and (m, d)."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    cov_x, cov_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = sqrtm(cov_x @ cov_y)
    trace = np.trace(root.real) + (_EPSILON * len(root) if np.iscomplexobj(root) else 0.0)
    return float(np.sum((x.mean(axis=0) - y.mean(axis=0)) ** 2) + np.trace(cov_x) + np.trace(cov_y) - 2 * trace)


def paper_kid(x: np.ndarray, y: np.ndarray, generator: np.random.Generator) -> float:
    """Compute the authors' KID: the biased estimate, averaged over 100 random subsets of at most 1,000 images each."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    size = min(len(x), len(y), _SUBSET_SIZE)
    xx, yy, xy = ((first @ second.T / x.shape[1] + 1) ** 3 for first, second in ((x, x), (y, y), (x, y)))
    values = []
    for _ in range(_SUBSETS):
        i, j = (generator.choice(len(features), size, replace=False) for features in (x, y))
        values.append(xx[np.ix_(i, i)].mean() + yy[np.ix_(j, j)].mean() - 2 * xy[np.ix_(i, j)].mean())
    return float(np.mean(values))
