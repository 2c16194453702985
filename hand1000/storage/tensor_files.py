"""Safetensors files that are written and read in one pass, tensor by tensor, without a copy of the whole.

safetensors' own functions copy tensors that are not contiguous, all at the same time, and map a file into memory, which
counts towards the process's memory.
"""

import contextlib
import itertools
import json
import math
import queue
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

from hand1000.core.errors import Hand1000Error, translate_write_errors
from hand1000.storage.digests import StreamDigest

if TYPE_CHECKING:
    import torch

_MAX_HEADER_BYTES = 100 << 20
_PIECE_BYTES = 16 << 20
# In the order in which safetensors sorts them, the last one first, so that every tensor is aligned.
_TYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "I16": "int16",
    "F16": "float16",
    "BF16": "bfloat16",
    "I32": "int32",
    "F32": "float32",
    "F64": "float64",
    "I64": "int64",
}
_NAMES = {name: kind for kind, name in _TYPES.items()}
_RANKS = {kind: rank for rank, kind in enumerate(_TYPES)}


def write_tensors(path: Path, tensors: "Mapping[str, torch.Tensor]") -> str:
    """Write tensors of any device and layout as a safetensors file, and return the file's sha256.

    The bytes are those of safetensors' `save_file`. At most one tensor is copied at a time, or a few `TensorRows`.

    Raises:
        Hand1000Error: The system refuses to write.
    """
    header, offsets, _ = encode_header({name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()})
    with translate_write_errors(path), open(path, "xb", buffering=0) as file, _HashingThread() as digest:
        pieces: Iterator[memoryview | bytes] = (piece for name in offsets for piece in _pieces(tensors[name]))
        for data in itertools.chain([header], pieces):
            digest.update(data)
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
        return digest.result()


def encode_header(tensors: "Mapping[str, tuple[torch.dtype, Sequence[int]]]") -> tuple[bytes, dict[str, int], int]:
    """Encode the beginning of a safetensors file of tensors with these types and shapes.

    Returns:
        The bytes before the first tensor; where each tensor begins, in the order in the file; and the file's size.
    """
    kinds = {name: _NAMES[str(dtype).removeprefix("torch.")] for name, (dtype, _) in tensors.items()}
    names = sorted(tensors, key=lambda name: (-_RANKS[kinds[name]], name))
    header: dict[str, Any] = {}
    end = 0
    for name in names:
        dtype, shape = tensors[name]
        start, end = end, end + dtype.itemsize * math.prod(shape)
        header[name] = {"dtype": kinds[name], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    first = 8 + len(text)
    offsets = {name: first + header[name]["data_offsets"][0] for name in names}
    return struct.pack("<Q", len(text)) + text, offsets, first + end


class TensorFile:
    """An open safetensors file, whose tensors are read one by one; a context that closes it.

    Raises:
        Hand1000Error: The file is missing or malformed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file: IO[bytes] = open(path, "rb", buffering=0)  # noqa: SIM115 (closed by the context)
            (size,) = struct.unpack("<Q", self._file.read(8))
            if size > _MAX_HEADER_BYTES:
                raise ValueError("its header is too long")
            self._header = json.loads(self._file.read(size))
            if not isinstance(self._header, dict):
                raise ValueError("its header is no object")
            self._header.pop("__metadata__", None)
            self._start = 8 + size
        except (OSError, ValueError, struct.error) as error:
            raise Hand1000Error(f"{path}: not a safetensors file: {error}") from error

    @property
    def names(self) -> list[str]:
        """The names of the tensors."""
        return list(self._header)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return tuple(self._header[name]["shape"])

    def dtype(self, name: str) -> "torch.dtype":
        """Return the type of a tensor's elements."""
        import torch

        return getattr(torch, _TYPES[self._header[name]["dtype"]])

    def offset(self, name: str) -> int:
        """Return where a tensor begins in the file, in bytes."""
        return int(self._start + self._header[name]["data_offsets"][0])

    def num_bytes(self, name: str) -> int:
        """Return the size of a tensor in bytes."""
        start, end = self._header[name]["data_offsets"]
        return int(end - start)

    def read(self, name: str) -> "torch.Tensor":
        """Return a tensor on the CPU."""
        import torch

        tensor = torch.empty(self.shape(name), dtype=self.dtype(name))
        self._read(name, tensor)
        return tensor

    def read_into(self, name: str, target: "torch.Tensor") -> None:
        """Set `target`, of the same shape and of any device, layout and type, to a tensor.

        Raises:
            Hand1000Error: The shapes differ, or the file ends early.
        """
        if self.shape(name) != tuple(target.shape):
            raise Hand1000Error(f"{self.path}: {name} has the shape {self.shape(name)}, not {tuple(target.shape)}")
        target = target.detach()
        if target.is_contiguous() and target.dtype == self.dtype(name) and target.device.type == "cpu":
            self._read(name, target)
        else:
            target.copy_(self.read(name))

    def _read(self, name: str, tensor: "torch.Tensor") -> None:
        view = memoryview(bytes_of(tensor))
        self._file.seek(self.offset(name))
        while view:
            count = self._file.readinto(view)  # type: ignore[attr-defined]
            if not count:
                raise Hand1000Error(f"{self.path}: ends within {name}; remove it")
            view = view[count:]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def read_tensors(path: Path) -> "dict[str, torch.Tensor]":
    """Return all tensors of a safetensors file, on the CPU."""
    with TensorFile(path) as file:
        return {name: file.read(name) for name in file.names}


def read_tensors_into(path: Path, targets: "Mapping[str, torch.Tensor]") -> None:
    """Set tensors to those of the same names in a safetensors file.

    Raises:
        Hand1000Error: The names or the shapes differ, or the file is malformed.
    """
    with TensorFile(path) as file:
        if different := targets.keys() ^ set(file.names):
            raise Hand1000Error(f"{path}: the tensor {min(different)} is not on both sides; remove the file")
        for name, target in targets.items():
            file.read_into(name, target)


def bytes_of(tensor: "torch.Tensor") -> memoryview:
    """Return the elements of a tensor in row-major order; without a copy if that is how they are in memory."""
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")


def _pieces(tensor: Any) -> Iterator[memoryview]:
    """Yield the bytes of a tensor, or of what stands for one in pieces."""
    if hasattr(tensor, "detach"):
        yield bytes_of(tensor)
        return
    rows = max(1, _PIECE_BYTES // max(1, tensor.dtype.itemsize * math.prod(tensor.shape[1:])))
    for start in range(0, len(tensor), rows):
        yield bytes_of(tensor[start : start + rows])


class _HashingThread(contextlib.AbstractContextManager):
    """The sha256 of pieces of bytes, computed beside their writing where a thread can be had."""

    def __init__(self) -> None:
        self._digest = StreamDigest()
        self._pieces: queue.SimpleQueue[memoryview | bytes | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(2)  # Each piece is a copy of a tensor where that is not contiguous.
        self._thread: threading.Thread | None = threading.Thread(target=self._work, daemon=True)
        try:
            self._thread.start()
        except (RuntimeError, MemoryError):
            self._thread = None

    def update(self, data: memoryview | bytes) -> None:
        """Add the next piece."""
        if self._thread is None:
            self._digest.update(data)
        else:
            self._room.acquire()
            self._pieces.put(data)

    def result(self) -> str:
        """Return the sha256 of all pieces."""
        self._stop()
        return self._digest.hexdigest()

    def _stop(self) -> None:
        if self._thread is not None:
            self._pieces.put(None)
            self._thread.join()
            self._thread = None

    def _work(self) -> None:
        while (data := self._pieces.get()) is not None:
            self._digest.update(data)
            self._room.release()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()
