"""The kernel distance of two models' hands, and what it is if the models are equal.

Both models generate the images of the same N prompts and seeds. A hand is paired with the hands of other prompts only:
those of its own prompt are more alike than independent ones, and equal models would have a negative distance.

A, B, C   sums of KID's kernel over the hands of images i and j: of the first model, of the second, of both    (N, N)
P         the numbers of pairs in these sums, of each of the three                                             (N, N)
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.sparse import csr_array

from hand1000.evaluation.paired import STATISTIC_RESAMPLES, Estimate
from hand1000.evaluation.statistics import kid_kernel


@dataclass(frozen=True)
class PairKernel:
    """Kernel sums `A`, `B`, `C` and the numbers of their pairs, (3, N, N) float64 each, with diagonals of 0."""

    sums: np.ndarray
    pairs: np.ndarray

    @classmethod
    def of(
        cls, first: np.ndarray, first_image: np.ndarray, second: np.ndarray, second_image: np.ndarray, num_images: int
    ) -> Self:
        """Sum the kernel over the hands of each two images.

        Args:
            first: Features of the first model's hands, (m, d).
            first_image: Index of the image of each hand, (m,).
            second: Features of the second model's hands, (k, d).
            second_image: Index of the image of each hand, (k,).
            num_images: Number N of the images of each model.
        """
        x, y = first.astype(np.float64), second.astype(np.float64)
        of_x, of_y = _membership(first_image, num_images), _membership(second_image, num_images)
        blocks = [(x, of_x, x, of_x), (y, of_y, y, of_y), (x, of_x, y, of_y)]
        sums = np.stack([(of_b @ (of_a @ kid_kernel(a, b)).T).T for a, of_a, b, of_b in blocks])
        counts = [np.bincount(index, minlength=num_images).astype(np.float64) for index in (first_image, second_image)]
        pairs = np.stack([np.outer(counts[i], counts[j]) for i, j in ((0, 0), (1, 1), (0, 1))])
        different = 1 - np.eye(num_images)
        return cls(sums * different, pairs * different)

    def distance(self, counts: np.ndarray) -> np.ndarray:
        """The squared kernel distance (R,) on resamples of the images (R, N); NaN where a model has too few hands."""
        first, second, cross = (
            _divide(_form(counts, self.sums[part], counts), _form(counts, self.pairs[part], counts))
            for part in range(3)
        )
        return first + second - 2 * cross

    def null_distance(self, generator: np.random.Generator) -> Estimate | None:
        """The distance of two equal models: the mean and the central 95 % of exchanges of the models' images.

        If the models are equal, it does not matter which of them generated which of the two images of a prompt. Each
        exchange draws that again for every prompt. None if it is not defined.
        """
        num_images = self.sums.shape[1]
        stays = generator.integers(0, 2, (STATISTIC_RESAMPLES, num_images)).astype(np.float64)
        moves = 1 - stays

        def forms(parts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            a, b, c = parts
            first = _form(stays, a, stays) + _form(moves, b, moves) + 2 * _form(stays, c, moves)
            second = _form(moves, a, moves) + _form(stays, b, stays) + 2 * _form(moves, c, stays)
            cross = _form(stays, a, moves) + _form(moves, b, stays) + _form(stays, c, stays) + _form(moves, c, moves)
            return first, second, cross

        sums, pairs = forms(self.sums), forms(self.pairs)
        first, second, cross = (_divide(total, count) for total, count in zip(sums, pairs, strict=True))
        values = first + second - 2 * cross
        values = values[np.isfinite(values)]
        if not len(values):
            return None
        low, high = np.percentile(values, [2.5, 97.5])
        return Estimate(value=float(values.mean()), low=float(low), high=float(high))


def _membership(image: np.ndarray, num_images: int) -> csr_array:
    """1 where a hand is in an image, (N, m)."""
    return csr_array((np.ones(len(image)), (image, np.arange(len(image)))), shape=(num_images, len(image)))


def _form(left: np.ndarray, matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The sums (R,) of left_i matrix_ij right_j for each row of `left` and `right`, (R, N)."""
    return np.sum((left @ matrix) * right, axis=1)


def _divide(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
