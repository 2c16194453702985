"""The landmarks of an image set as an artifact."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from hand1000.core.errors import Hand1000Error
from hand1000.storage.tensors import TensorRecord

NUM_LANDMARKS = 21
"""MediaPipe's landmarks: the wrist, then four per finger from the thumb to the pinky, outwards."""


@dataclass(frozen=True)
class Landmarks(TensorRecord, stem="landmarks", remedy="run the detection again"):
    """The hand of every image of a set; the values of an image without a hand are 0.

    Attributes:
        landmarks: (N, 21, 3) float32, as in `hand1000.hands.detector.Hand`.
        found: (N,) bool, whether the hand was found.
        score: (N,) float32, confidence in the handedness.
        right: (N,) bool, whether it is a right hand.
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
            raise ValueError(f"landmarks of shape {self.landmarks.shape} for {len(self)} images")

    def select(self, file_names: Sequence[str]) -> Self:
        """Return the rows of some of the images, in the order of `file_names`."""
        index = {name: row for row, name in enumerate(self.file_names)}
        rows = [index[name] for name in file_names]
        return type(self)(self.landmarks[rows], self.found[rows], self.score[rows], self.right[rows], tuple(file_names))

    @classmethod
    def concatenate(cls, shards: Sequence[Self]) -> Self:
        """Merge shards in the order of the file names, so that any number of shards gives the same bits.

        Raises:
            Hand1000Error: Two shards hold the same image.
        """
        names = [name for shard in shards for name in shard.file_names]
        if len(set(names)) < len(names):
            duplicate = next(name for name in names if names.count(name) > 1)
            raise Hand1000Error(f"{duplicate}: in two sets of landmarks; merge the shards of one run only")
        order = sorted(range(len(names)), key=names.__getitem__)
        fields = ("landmarks", "found", "score", "right")
        merged = {name: np.concatenate([getattr(shard, name) for shard in shards])[order] for name in fields}
        return cls(**merged, file_names=tuple(names[index] for index in order))
