"""FID and KID as the paper's scripts compute them."""

import numpy as np
import pytest

from hand1000.evaluation.distances import frechet_distance, kernel_distance
from hand1000.paper.metrics import paper_fid, paper_kid


def test_the_papers_fid_and_kid_differ_as_its_scripts_do() -> None:
    draws = np.random.default_rng(0)
    x, y = draws.normal(size=(300, 8)), draws.normal(0.3, 1.2, size=(300, 8))
    # With more images than dimensions the root is real, and their FID equals the usual one.
    assert paper_fid(x, y) == pytest.approx(frechet_distance(x, y), rel=1e-6)
    # Of equal numbers of up to 1,000 each part is the whole: the biased estimate, which is larger than the unbiased.
    biased = paper_kid(x, y, draws)
    likeness = [((a @ b.T / 8 + 1) ** 3).mean() for a, b in ((x, x), (y, y), (x, y))]
    assert biased == pytest.approx(likeness[0] + likeness[1] - 2 * likeness[2])
    assert biased > kernel_distance(x, y, draws).value + 0.01
    # With fewer the root of a singular matrix comes out complex, and a small number is added for each dimension.
    few, others = draws.normal(size=(10, 40)), draws.normal(size=(10, 40))
    assert paper_fid(few, others) == pytest.approx(frechet_distance(few, others), abs=0.05)
