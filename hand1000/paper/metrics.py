"""The arithmetic by which the authors' scripts tell FID and KID, so that their numbers can be set beside ours.

It is theirs with what is wrong in it (docs/method.md): a small number is added where the root of a matrix came out
complex, and KID counts every picture's likeness to itself. Their features are those of torchvision's ImageNet
Inception, where everybody else's are of the 2015 one; `evaluation.feature_extractor` takes any as TorchScript.
"""

import numpy as np
from scipy.linalg import sqrtm

_EPSILON = 1e-6
_SUBSETS, _SUBSET_SIZE = 100, 1000


def paper_fid(x: np.ndarray, y: np.ndarray) -> float:
    """Their FID of features (n, d) and (m, d)."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    of_x, of_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = sqrtm(of_x @ of_y)
    trace = np.trace(root.real) + (_EPSILON * len(root) if np.iscomplexobj(root) else 0.0)
    return float(np.sum((x.mean(axis=0) - y.mean(axis=0)) ** 2) + np.trace(of_x) + np.trace(of_y) - 2 * trace)


def paper_kid(x: np.ndarray, y: np.ndarray, generator: np.random.Generator) -> float:
    """Their KID: the biased estimate, averaged over 100 random parts of both sets of at most 1,000 pictures each."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    size = min(len(x), len(y), _SUBSET_SIZE)
    xx, yy, xy = ((first @ second.T / x.shape[1] + 1) ** 3 for first, second in ((x, x), (y, y), (x, y)))
    values = []
    for _ in range(_SUBSETS):
        i, j = (generator.choice(len(features), size, replace=False) for features in (x, y))
        values.append(xx[np.ix_(i, i)].mean() + yy[np.ix_(j, j)].mean() - 2 * xy[np.ix_(i, j)].mean())
    return float(np.mean(values))
