"""Where a user's files come from: a folder or an `s3://` prefix, listed piece by piece and fetched file by file.

Names are relative to the source, with `/`. A source is only read.
"""

import contextlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from hand1000.core.errors import Hand1000Error, translate_write_errors
from hand1000.storage.s3 import s3_client, translate_s3_errors
from hand1000.storage.scratch import process_scratch


class Source(Protocol):
    """A folder or a bucket's prefix. Every method raises `Hand1000Error` when it cannot be read."""

    address: str
    at_once: int
    """How many files are worth fetching at the same time."""

    def folders(self, under: str = "") -> list[str]:
        """The names of the folders that lie directly in the folder `under`, sorted."""

    def files(self, folder: str) -> Iterator[str]:
        """The names of the files that lie directly in `folder`, in any order; they are never all in memory."""

    def version(self, name: str) -> list[int | str]:
        """What changes when the file changes, without reading it."""

    def fetched(self, name: str) -> AbstractContextManager[Path]:
        """The file on this machine, for as long as the context lasts."""


def open_source(address: str | Path) -> Source:
    """The source at a folder or an `s3://` prefix.

    Raises:
        Hand1000Error: there is no such folder; a prefix is asked for only when it is read.
    """
    if str(address).startswith("s3://"):
        return S3Source(str(address))
    folder = Path(address).expanduser()
    if not folder.is_dir():
        raise Hand1000Error(f"{address}: no such folder; give the folder that holds the pictures")
    return LocalSource(folder)


class LocalSource:
    """A folder of this machine."""

    at_once = 2  # Cores decode what a disk gives at once.

    def __init__(self, folder: Path) -> None:
        self.address = str(folder)
        self._folder = folder

    def folders(self, under: str = "") -> list[str]:
        """See `Source`."""
        return sorted(entry.name for entry in self._entries(under) if entry.is_dir())

    def files(self, folder: str) -> Iterator[str]:
        """See `Source`; hidden files are not told."""
        prefix = f"{folder}/" if folder else ""
        for entry in self._entries(folder):
            if not entry.name.startswith(".") and entry.is_file():
                yield f"{prefix}{entry.name}"

    def version(self, name: str) -> list[int | str]:
        """Size and time of the last change."""
        try:
            status = (self._folder / name).stat()
        except OSError as error:
            raise Hand1000Error(f"{self._folder / name}: cannot be read: {error.strerror}") from error
        return [status.st_size, status.st_mtime_ns]

    @contextlib.contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        """The file itself."""
        yield self._folder / name

    def _entries(self, folder: str) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(self._folder / folder) as entries:
                yield from entries
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise Hand1000Error(f"{self._folder / folder}: cannot be read: {error.strerror}") from error


class S3Source:
    """A prefix of a bucket."""

    at_once = 8  # A request waits for the network most of its time.

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self._bucket, _, prefix = self.address.removeprefix("s3://").partition("/")
        self._prefix = f"{prefix}/" if prefix else ""

    @cached_property
    def _client(self) -> Any:
        return s3_client()

    @cached_property
    def _scratch(self) -> Path:
        return process_scratch(None)

    def folders(self, under: str = "") -> list[str]:
        """See `Source`; one request tells a thousand."""
        prefix = self._inside(under)
        return sorted(
            one["Prefix"].removeprefix(prefix).rstrip("/")
            for page in self._pages(prefix)
            for one in page.get("CommonPrefixes", [])
        )

    def files(self, folder: str) -> Iterator[str]:
        """See `Source`; one request tells a thousand."""
        prefix = self._inside(folder)
        for page in self._pages(prefix):
            for one in page.get("Contents", []):
                name = one["Key"].removeprefix(prefix)
                if name and not name.startswith("."):
                    yield one["Key"].removeprefix(self._prefix)

    def version(self, name: str) -> list[int | str]:
        """Size and entity tag."""
        with translate_s3_errors(f"{self.address}/{name}"):
            head = self._client.head_object(Bucket=self._bucket, Key=self._prefix + name)
        return [head["ContentLength"], head["ETag"]]

    @contextlib.contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        """A copy, removed afterwards: a million pictures would fill the disk."""
        path = self._scratch / f"{uuid4().hex}{Path(name).suffix}"
        try:
            with translate_write_errors(path), translate_s3_errors(f"{self.address}/{name}"):
                self._client.download_file(self._bucket, self._prefix + name, str(path))
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _inside(self, folder: str) -> str:
        return f"{self._prefix}{folder}/" if folder else self._prefix

    def _pages(self, prefix: str) -> Iterator[dict[str, Any]]:
        paginator = self._client.get_paginator("list_objects_v2")
        with translate_s3_errors(f"s3://{self._bucket}/{prefix}"):
            yield from paginator.paginate(Bucket=self._bucket, Prefix=prefix, Delimiter="/")
