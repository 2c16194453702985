"""The hands of an image set as an artifact holds them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from hand1000.core.errors import Hand1000Error
from hand1000.storage.files import read_json, write_bytes, write_json

NUM_LANDMARKS = 21
"""MediaPipe's: the wrist, then four of each finger from the thumb, outwards."""


@dataclass(frozen=True)
class Landmarks:
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

    def save(self, directory: Path) -> None:
        """Write `landmarks.safetensors` and `landmarks.json`."""
        tensors = {"landmarks": self.landmarks, "found": self.found, "score": self.score, "right": self.right}
        write_bytes(directory / "landmarks.safetensors", save(tensors))
        write_json(directory / "landmarks.json", {"file_names": self.file_names})

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            Hand1000Error: a file is missing or malformed.
        """
        path = directory / "landmarks.safetensors"
        try:
            names = tuple(read_json(directory / "landmarks.json")["file_names"])
            self = cls(**load_file(path), file_names=names)
        except (OSError, SafetensorError, KeyError, TypeError) as error:
            raise Hand1000Error(f"{path}: not landmarks: {error}; find the hands again") from error
        if self.landmarks.shape != (len(names), NUM_LANDMARKS, 3):
            raise Hand1000Error(f"{path}: {self.landmarks.shape} for {len(names)} images; find the hands again")
        return self

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
