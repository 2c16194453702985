"""Rows of tensors in safetensors files, of which only a batch is in memory at a time.

They are read and written where they are in the file. A mapped file would count towards the process's memory, page by
page, until all of it does.
"""

import contextlib
import math
import os
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hand1000.core.errors import Hand1000Error, translate_write_errors
from hand1000.storage.tensor_files import TensorFile, bytes_of, encode_header

if TYPE_CHECKING:
    import torch

    Rows = slice | Sequence[int] | torch.Tensor
    """What selects rows: a slice, or indices."""


class _OpenFile:
    """A descriptor that is closed with the last object that reads from it; any number of threads may use it."""

    def __init__(self, path: Path, flags: int = os.O_RDONLY) -> None:
        self.path, self.descriptor = path, os.open(path, flags, 0o666)
        weakref.finalize(self, os.close, self.descriptor)

    def read_into(self, view: memoryview, offset: int) -> None:
        while view:
            data = os.pread(self.descriptor, len(view), offset)  # preadv is not on every system.
            if not data:
                raise Hand1000Error(f"{self.path}: was cut short while it was read; run the task again")
            view[: len(data)] = data
            view, offset = view[len(data) :], offset + len(data)

    def write(self, view: memoryview, offset: int) -> None:
        with translate_write_errors(self.path):
            while view:
                count = os.pwrite(self.descriptor, view, offset)
                view, offset = view[count:], offset + count


class TensorRows:
    """The rows of a tensor in a file, or of tensors in several files, in any order.

    It stands where a tensor would of which only rows are used: `rows[indices]` reads them as a tensor on the CPU.

    Attributes:
        shape: Shape as that of a tensor, (N, ...).
        dtype: Type of the numbers.
    """

    def __init__(
        self, places: Sequence[tuple[_OpenFile, int]], row_shape: tuple[int, ...], dtype: "torch.dtype"
    ) -> None:
        self._places, self.dtype = places, dtype
        self.shape = (len(places), *row_shape)

    @classmethod
    def open(cls, path: Path, name: str) -> Self:
        """Open a tensor of a safetensors file.

        Raises:
            Hand1000Error: The file is missing or malformed.
        """
        with TensorFile(path) as file:
            (count, *row_shape), dtype, start = file.shape(name), file.dtype(name), file.offset(name)
        opened, size = _OpenFile(path), dtype.itemsize * math.prod(row_shape)
        if os.fstat(opened.descriptor).st_size < start + count * size:
            raise Hand1000Error(f"{path}: ends within {name}; remove it")
        return cls([(opened, start + row * size) for row in range(count)], tuple(row_shape), dtype)

    @classmethod
    def join(cls, rows: "Iterable[TensorRows]") -> Self:
        """Join parts of one shape and type, in order.

        Raises:
            Hand1000Error: The shapes or types differ.
        """
        first, *others = rows
        places = list(first._places)
        for part in others:
            if (part.shape[1:], part.dtype) != (first.shape[1:], first.dtype):
                raise Hand1000Error(
                    f"{part._places[0][0].path}: its rows are not like those of other shards; remove it"
                )
            places += part._places
        return cls(places, first.shape[1:], first.dtype)

    def select(self, rows: "Rows") -> "TensorRows":
        """Return some of the rows, without reading them."""
        return TensorRows([self._places[row] for row in _indices(rows, len(self))], self.shape[1:], self.dtype)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, rows: "Rows") -> "torch.Tensor":
        import torch

        places = self.select(rows)._places
        tensor = torch.empty((len(places), *self.shape[1:]), dtype=self.dtype)
        for (file, offset), row in zip(places, tensor, strict=True):
            file.read_into(bytes_of(row), offset)
        return tensor


class NewTensorRows(TensorRows):
    """Rows of a new file; `rows[indices] = tensor` writes them."""

    def __setitem__(self, rows: "Rows", values: "torch.Tensor") -> None:
        for (file, offset), row in zip(self.select(rows)._places, values.to(self.dtype), strict=True):
            file.write(bytes_of(row), offset)


@contextlib.contextmanager
def create_tensor_rows(
    path: Path,
    kinds: "Mapping[str, tuple[torch.dtype, Sequence[int]]]",
    whole: "Mapping[str, torch.Tensor] | None" = None,
) -> Iterator[dict[str, NewTensorRows]]:
    """Create a safetensors file, to be filled row by row until the context ends; its bytes are those of `save_file`.

    Args:
        path: The file, which must not exist.
        kinds: Type and shape of each tensor that is filled, with one dimension or more.
        whole: Further tensors, which are written at once.

    Raises:
        Hand1000Error: The system refuses to write.
    """
    whole = whole or {}
    all_kinds = {**kinds, **{name: (tensor.dtype, tensor.shape) for name, tensor in whole.items()}}
    header, offsets, size = encode_header(all_kinds)
    with translate_write_errors(path):
        file = _OpenFile(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        os.ftruncate(file.descriptor, size)
    file.write(memoryview(header), 0)
    for name, tensor in whole.items():
        file.write(bytes_of(tensor), offsets[name])
    rows: dict[str, NewTensorRows] = {}
    for name, (dtype, (count, *row_shape)) in kinds.items():
        row_bytes = dtype.itemsize * math.prod(row_shape)
        places = [(file, offsets[name] + row * row_bytes) for row in range(count)]
        rows[name] = NewTensorRows(places, tuple(row_shape), dtype)
    yield rows
    with translate_write_errors(path):
        os.fsync(file.descriptor)


def select_rows(tensor: Any, rows: "Rows") -> Any:
    """Return some rows of a tensor, or of what stands for one, which are then not yet read."""
    return tensor.select(rows) if isinstance(tensor, TensorRows) else tensor[rows]


def _indices(rows: "Rows", count: int) -> Sequence[int]:
    if isinstance(rows, slice):
        return range(count)[rows]
    return rows.tolist() if hasattr(rows, "tolist") else rows
