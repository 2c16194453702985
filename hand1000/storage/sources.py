"""Folders that a run reads but did not write: images and models of a user, in a folder or below an `s3://` prefix.

A `Source` lists a large folder piece by piece and fetches single files; `local_copy` fetches a whole folder.
Names are relative to the source, with `/`.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from hand1000.core.errors import Hand1000Error
from hand1000.storage.cache import node_cached_dir
from hand1000.storage.digests import digest_json, tree_manifest
from hand1000.storage.keys import safe_join
from hand1000.storage.s3 import S3Location, S3Object
from hand1000.storage.s3_errors import translate_s3_errors

_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,12}")


class Source(Protocol):
    """A folder or a bucket's prefix. Every method raises `Hand1000Error` when it cannot be read."""

    root: str
    concurrency: int
    """Number of files that are worth fetching at the same time."""

    def list_folders(self, parent: str = "") -> list[str]:
        """Return the sorted names of the folders directly in the folder `parent`."""

    def list_files(self, folder: str) -> Iterator[str]:
        """Yield the names of the files directly in `folder`, in any order and never all in memory; no hidden files."""

    def list_links(self, folder: str) -> Iterator[tuple[str, bool]]:
        """Yield what is in `folder` and is a link out of the source, True, or neither file nor folder, False."""

    def file_version(self, name: str) -> list[int | str]:
        """Return values that change when the file changes, without reading the file."""

    def local_path(self, name: str) -> AbstractContextManager[Path]:
        """Provide the file on this machine until the context ends."""


def open_source(address: str | Path) -> Source:
    """Return the source at a folder or an `s3://` prefix.

    Raises:
        Hand1000Error: There is no such folder, or the URL is malformed; a prefix is only requested when it is read.
    """
    return S3Source(str(address)) if str(address).startswith("s3://") else LocalSource(_existing_folder(address))


class LocalSource:
    """A folder of this machine."""

    concurrency = 2  # Decoding is bound by the CPU; the disk needs no more requests.

    def __init__(self, folder: Path) -> None:
        self.root = str(folder)
        self._folder = folder

    def list_folders(self, parent: str = "") -> list[str]:
        """See `Source`."""
        return sorted(entry.name for entry in self._entries(parent) if entry.is_dir())

    def list_files(self, folder: str) -> Iterator[str]:
        """See `Source`."""
        prefix = f"{folder}/" if folder else ""
        for entry in self._entries(folder):
            if not entry.name.startswith(".") and entry.is_file():
                yield f"{prefix}{entry.name}"

    def list_links(self, folder: str) -> Iterator[tuple[str, bool]]:
        """See `Source`; a dangling link is neither file nor folder."""
        root, prefix = self._folder.resolve(), f"{folder}/" if folder else ""
        for entry in self._entries(folder):
            if entry.name.startswith("."):
                continue
            if not entry.is_file() and not entry.is_dir():
                yield f"{prefix}{entry.name}", False
            elif entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(root):
                yield f"{prefix}{entry.name}", True

    def file_version(self, name: str) -> list[int | str]:
        """Return size and modification time."""
        try:
            status = self._path(name).stat()
        except OSError as error:
            raise Hand1000Error(f"{self._folder / name}: cannot be read: {error.strerror}") from error
        return [status.st_size, status.st_mtime_ns]

    @contextlib.contextmanager
    def local_path(self, name: str) -> Iterator[Path]:
        """Provide the file itself."""
        yield self._path(name)

    def _path(self, name: str) -> Path:
        return safe_join(self._folder, name) if name else self._folder

    def _entries(self, folder: str) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(self._path(folder)) as entries:
                yield from entries
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise Hand1000Error(f"{self._path(folder)}: cannot be read: {error.strerror}") from error


class S3Source(S3Location):
    """A prefix of a bucket."""

    concurrency = 8  # A request spends most of its time waiting for the network.

    def list_folders(self, parent: str = "") -> list[str]:
        """See `Source`; one request lists a thousand."""
        prefix = f"{parent}/" if parent else ""
        names = (item.name.removeprefix(prefix) for item in self.list_objects(prefix, recursive=False))
        return sorted(name.rstrip("/") for name in names if name.endswith("/"))

    def list_files(self, folder: str) -> Iterator[str]:
        """See `Source`; one request lists a thousand."""
        prefix = f"{folder}/" if folder else ""
        for item in self.list_objects(prefix, recursive=False):
            name = item.name.removeprefix(prefix)
            if name and not name.startswith(".") and not name.endswith("/"):
                yield item.name

    def list_links(self, folder: str) -> Iterator[tuple[str, bool]]:
        """See `Source`; a bucket has none."""
        return iter(())

    def file_version(self, name: str) -> list[int | str]:
        """Return size and entity tag."""
        with translate_s3_errors(self._url(name)):
            head = self.client.head_object(Bucket=self._bucket, Key=self._key(name))
        return [head["ContentLength"], head["ETag"]]

    @contextlib.contextmanager
    def local_path(self, name: str) -> Iterator[Path]:
        """Provide a copy and remove it afterwards: a million images would fill the disk."""
        suffix = Path(name).suffix
        path = self.scratch_dir / f"{uuid4().hex}{suffix if _SUFFIX.fullmatch(suffix) else ''}"
        try:
            self.download(name, path)
            yield path
        finally:
            path.unlink(missing_ok=True)


@cache
def local_copy(source: str) -> Path:
    """Return the folder `source`, or a copy of the `s3://` prefix that this process, or this node, downloads once.

    Raises:
        Hand1000Error: There is no such folder, or nothing below the prefix.
    """
    if not source.startswith("s3://"):
        return _existing_folder(source)
    location, objects = _list_all(source)

    def download_missing(target: Path) -> None:
        for item in objects:
            path = safe_join(target, item.name)
            if not (path.is_file() and path.stat().st_size == item.size):
                location.download(item.name, path)

    return node_cached_dir(folder_digest(source), download_missing)


@cache
def folder_digest(source: str) -> str:
    """Return a digest of the content of `source`: of a folder its files' sha256, of a prefix its listing."""
    if source.startswith("s3://"):
        return digest_json(_list_all(source)[1])
    return tree_manifest(_existing_folder(source)).digest


@cache  # The digest and the copy of one process must agree.
def _list_all(source: str) -> tuple[S3Location, list[S3Object]]:
    location = S3Location(source)
    # Consoles mark an empty folder by an empty object whose name ends in "/".
    objects = [item for item in location.list_objects() if item.size or not item.name.endswith("/") and item.name]
    if not objects:
        raise Hand1000Error(f"{source}: there are no objects below this prefix")
    return location, objects


def _existing_folder(address: str | Path) -> Path:
    folder = Path(address).expanduser()
    if not folder.is_dir():
        raise Hand1000Error(f"{address}: no such folder")
    return folder
