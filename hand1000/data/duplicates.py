"""Duplicate images, found by perceptual hash, whatever their size and format."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

MAX_HASH_DISTANCE = 3
"""Number of the hash's 64 bits in which duplicates may differ: another size, format or compression changes few."""

MAX_COLOR_DIFFERENCE = 8
"""Largest difference of the mean colors of 4x4 cells of duplicates, of 255: the hash itself does not see colors."""

_CELLS = 4
_BANDS = MAX_HASH_DISTANCE + 1  # Hashes that differ in fewer bits than there are bands agree in one band.
_BAND_BITS = 64 // _BANDS
_POPCOUNT = np.array([value.bit_count() for value in range(1 << 16)], np.uint8)


@dataclass(frozen=True)
class Fingerprint:
    """What is compared of an image: a hash of 64 bits, and the mean colors of 4x4 cells, 48 bytes."""

    hash: int
    colors: bytes


def fingerprint(pixels: np.ndarray) -> Fingerprint:
    """Return the fingerprint of an image, (S, S, 3) uint8 RGB."""
    import imagehash

    image = Image.fromarray(pixels)
    colors = image.resize((_CELLS, _CELLS), Image.Resampling.BOX).tobytes()
    return Fingerprint(int(str(imagehash.phash(image)), 16), colors)


def find_duplicates(fingerprints: Sequence[Fingerprint]) -> list[list[int]]:
    """Return the groups of images that are duplicates of each other, by index and in order; no group has only one."""
    if not fingerprints:
        return []
    groups = _Groups(len(fingerprints))
    hashes = np.array([item.hash for item in fingerprints], np.uint64)
    colors = np.frombuffer(b"".join(item.colors for item in fingerprints), np.uint8).reshape(len(hashes), -1)
    for band in range(_BANDS):
        keys = (hashes >> np.uint64(band * _BAND_BITS)) & np.uint64((1 << _BAND_BITS) - 1)
        order = np.argsort(keys, kind="stable")
        starts = np.flatnonzero(np.diff(keys[order])) + 1
        for bucket in np.split(order, starts):
            for place, index in enumerate(bucket[:-1]):
                others = bucket[place + 1 :]
                is_near = _count_bits(hashes[others] ^ hashes[index]) <= MAX_HASH_DISTANCE
                others = others[is_near]
                difference = np.abs(colors[others].astype(np.int16) - colors[index]).max(1, initial=0)
                for other in others[difference <= MAX_COLOR_DIFFERENCE]:
                    groups.join(int(index), int(other))
    return groups.result()


def _count_bits(values: np.ndarray) -> np.ndarray:
    return _POPCOUNT[values[:, None].view(np.uint16)].sum(1)


class _Groups:
    """Disjoint sets of indices."""

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))

    def join(self, one: int, other: int) -> None:
        first, second = sorted((self._root(one), self._root(other)))
        self._parents[second] = first

    def result(self) -> list[list[int]]:
        groups: dict[int, list[int]] = {}
        for index in range(len(self._parents)):
            groups.setdefault(self._root(index), []).append(index)
        return [group for group in groups.values() if len(group) > 1]

    def _root(self, index: int) -> int:
        while self._parents[index] != index:
            self._parents[index] = self._parents[self._parents[index]]
            index = self._parents[index]
        return index
