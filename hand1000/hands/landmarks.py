"""The hands of an image set as an artifact holds them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from hand1000.core.errors import Hand1000Error
from hand1000.storage.tensors import TensorRecord

NUM_LANDMARKS = 21
"""MediaPipe's: the wrist, then four of each finger from the thumb, outwards."""


@dataclass(frozen=True)
class Landmarks(TensorRecord, stem="landmarks", remedy="find the hands again"):
    """The hand of every image of a set; where none was found the row is zeros.

    Attributes:
        landmarks: (N, 21, 3) float32, as in `hand1000.hands.detector.Hand`.
        found: (N,) bool.
        score: (N,) float32.
        right: (N,) bool.
        file_names: the N images.
    """

    landmarks: np.ndarray
    found: np.ndarray
    score: np.ndarray
    right: np.ndarray
    file_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.file_names)

    def _validate(self) -> None:
        if self.landmarks.shape != (len(self), NUM_LANDMARKS, 3):
            raise ValueError(f"{self.landmarks.shape} for {len(self)} images")

    def of(self, file_names: Sequence[str]) -> Self:
        """The rows of some of the images, in the order of `file_names`."""
        place = {name: row for row, name in enumerate(self.file_names)}
        rows = [place[name] for name in file_names]
        return type(self)(self.landmarks[rows], self.found[rows], self.score[rows], self.right[rows], tuple(file_names))

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """The rows of all parts in the order of the file names: one part or many give the same bits.

        Raises:
            Hand1000Error: two parts hold one image.
        """
        names = [name for part in parts for name in part.file_names]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise Hand1000Error(f"{twice}: in two sets of landmarks; merge the shards of one run only")
        order = sorted(range(len(names)), key=names.__getitem__)
        fields = ("landmarks", "found", "score", "right")
        merged = {name: np.concatenate([getattr(part, name) for part in parts])[order] for name in fields}
        return cls(**merged, file_names=tuple(names[index] for index in order))
