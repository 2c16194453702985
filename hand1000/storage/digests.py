"""Names by content: the sha256 of bytes, files, JSON values and folders."""

import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, NamedTuple, TypeVar

from pydantic import BaseModel, Field, field_validator

from hand1000.core.errors import Hand1000Error
from hand1000.storage.keys import find_key_fault

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
T = TypeVar("T")
Result = TypeVar("Result")

_BUFFER_BYTES = 1 << 20
_MAX_THREADS = 8


class DamagedError(Hand1000Error):
    """Stored content is missing, incomplete or not what was written."""


def digest_bytes(data: bytes) -> str:
    """Return the sha256 of `data`, 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> str:
    """Return the sha256 of a file, which is read in chunks and may be of any size."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class StreamDigest:
    """The sha256 of bytes that come one after the other.

    Attributes:
        size: Number of bytes so far.
    """

    def __init__(self) -> None:
        self.size, self._hash = 0, hashlib.sha256()

    def update(self, data: bytes | memoryview) -> None:
        """Add the next bytes; other threads run meanwhile."""
        self._hash.update(data)
        self.size += len(data)

    def update_from(self, file: int, start: int, stop: int) -> None:
        """Add the bytes of a range of the open file `file`, or those before its end."""
        buffer = memoryview(bytearray(min(_BUFFER_BYTES, stop - start)))
        while start < stop and (count := os.preadv(file, [buffer[: stop - start]], start)):
            self.update(buffer[:count])
            start += count

    def hexdigest(self) -> str:
        """Return the sha256 of the bytes so far, 64 hexadecimal digits."""
        return self._hash.hexdigest()


def in_threads(function: Callable[[T], Result], items: Sequence[T]) -> list[Result]:
    """Return the results of `function`, which spends its time in hashing and reading, in the order of the items."""
    if len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1, len(items))) as pool:
        return list(pool.map(function, items))


_digests: dict[tuple[int, int], tuple[tuple[int, int, int], str]] = {}
# Two writes within one tick of the filesystem's clock leave the same times.
_TICK_NS = 50_000_000


def remembered_digest(path: Path) -> str:
    """Return the sha256 of a file, which this process reads once while inode, size and times stay the same."""
    before = os.stat(path)
    file, state = (before.st_dev, before.st_ino), (before.st_size, before.st_mtime_ns, before.st_ctime_ns)
    known = _digests.get(file)
    if known is not None and known[0] == state:
        return known[1]
    digest = digest_file(path)
    if time.time_ns() - max(before.st_mtime_ns, before.st_ctime_ns) > _TICK_NS:
        _digests[file] = (state, digest)
    return digest


def forget_digest(path: Path) -> None:
    """Have `remembered_digest` read a file again."""
    status = os.stat(path)
    _digests.pop((status.st_dev, status.st_ino), None)


def canonical_json(value: object) -> str:
    """Return the canonical text of a JSON value or pydantic model: sorted keys, no spaces, no NaN."""
    return json.dumps(
        value, default=_dump_model, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def digest_json(value: object) -> str:
    """Return the sha256 of `canonical_json(value)`, which does not depend on the order of keys."""
    return digest_bytes(canonical_json(value).encode())


def _dump_model(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} is not JSON")


OTHER_BYTES = "its bytes are not those that were written"


def describe_damage(size: int, expected: int) -> str:
    """Say what is wrong with a file of `size` bytes that is not the one of `expected` bytes that was written."""
    return f"{size} of {expected} bytes" if size != expected else OTHER_BYTES


class StoredFile(NamedTuple):
    """A file or object below a root: its key, its size in bytes, and when it was written, in seconds since 1970."""

    key: str
    size: int
    modified: float


class FileEntry(BaseModel, extra="forbid", frozen=True):
    """A file of a folder: its name relative to the folder, with `/`, its size in bytes and its sha256."""

    name: str = Field(min_length=1)
    size: int = Field(ge=0)
    sha256: Sha256

    @field_validator("name")
    @classmethod
    def _stays_inside(cls, name: str) -> str:
        # A manifest may come from a bucket that others can write to, and its names become paths on this machine.
        if fault := find_key_fault(name):
            raise ValueError(f"not a plain relative path: {fault}")
        return name


class Manifest(BaseModel, extra="forbid", frozen=True):
    """The files of a folder, sorted by name."""

    files: tuple[FileEntry, ...]

    @property
    def digest(self) -> str:
        """The sha256 of the listing, which names the folder's content."""
        return digest_json([entry.model_dump() for entry in self.files])


def tree_manifest(directory: Path, digests: Mapping[str, str] | None = None) -> Manifest:
    """Return the manifest of all files below `directory`; empty folders do not count.

    Args:
        directory: The folder.
        digests: The sha256 of some of the files by name, taken while they were written; the others are read.

    Raises:
        Hand1000Error: No such folder, or it holds a link or a device, whose target would not be copied with it.
    """
    if not directory.is_dir():
        raise Hand1000Error(f"{directory}: no such folder")
    paths = []
    for path in directory.rglob("*"):
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            continue
        if not stat.S_ISREG(mode):
            raise Hand1000Error(f"{path}: not a plain file; replace it by a copy of its target")
        paths.append(path)

    def describe(path: Path) -> FileEntry:
        name = path.relative_to(directory).as_posix()
        return FileEntry(
            name=name, size=path.stat().st_size, sha256=(digests or {}).get(name) or remembered_digest(path)
        )

    return Manifest(files=tuple(sorted(in_threads(describe, paths), key=lambda entry: entry.name)))
