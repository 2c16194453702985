"""What the artifact store asks of the place it lies in, and the place that is a folder.

Keys are relative paths with `/`. A *tree* is the files of a folder below a key, listed by a manifest that the store
keeps elsewhere; a place need not write a tree atomically, since the store writes the manifest after it.
"""

import errno
import os
import shutil
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from hand1000.core.errors import Hand1000Error, translate_write_errors
from hand1000.storage.digests import Manifest, tree_manifest
from hand1000.storage.files import write_bytes
from hand1000.storage.scratch import process_scratch


class DamagedError(Hand1000Error):
    """What a key holds is missing, incomplete or not what was written."""


class StorageBackend(Protocol):
    """A folder or a bucket's prefix. Every method raises `Hand1000Error` when the place refuses."""

    root: str

    def scratch(self) -> Path:
        """This process's temporary folder, near the place where that is possible."""

    def read(self, key: str) -> bytes | None:
        """The bytes at `key`, or None. Raises `DamagedError` where they are known not to be what was written."""

    def write(self, key: str, data: bytes) -> None:
        """Put `data` at `key`: all of it or nothing."""

    def remove(self, key: str) -> None:
        """Remove what is at `key` and everything below it; nothing there is fine."""

    def sizes(self, key: str) -> dict[str, int]:
        """The bytes of each file of the tree at `key`, by its name."""

    def put_tree(self, directory: Path, key: str, manifest: Manifest) -> None:
        """Put the files of `directory`, which may be moved away, at `key`."""

    def get_tree(self, key: str, manifest: Manifest, into: Path) -> None:
        """Copy the files of `manifest` from `key` into the folder `into`. Raises `DamagedError` if one is missing."""

    def folder(self, key: str) -> Path | None:
        """The tree at `key` as a folder that can be read in place, or None where it must be copied first."""


class LocalBackend:
    """A folder of this machine, or one that several machines mount."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._base = Path(root)
        self._scratch: Path | None = None

    def scratch(self) -> Path:
        """A temporary folder on the root's own filesystem, so that what is built there can be moved in place."""
        if self._scratch is None:
            self._scratch = process_scratch(self._base / "scratch")
        return self._scratch

    def read(self, key: str) -> bytes | None:
        """The bytes of a file, or None."""
        try:
            return (self._base / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise Hand1000Error(f"{self._base / key}: cannot be read: {error.strerror}") from error

    def write(self, key: str, data: bytes) -> None:
        """Write a file atomically."""
        write_bytes(self._base / key, data)

    def remove(self, key: str) -> None:
        """Remove a file, or a folder with all that is in it."""
        path = self._base / key
        doomed = self.scratch() / uuid4().hex
        with translate_write_errors(path):
            try:
                os.rename(path, doomed)  # First out of sight, so that nobody finds half of it.
            except (FileNotFoundError, NotADirectoryError):
                return
            if doomed.is_dir():
                shutil.rmtree(doomed)
            else:
                doomed.unlink()

    def sizes(self, key: str) -> dict[str, int]:
        """The bytes of each file below a folder."""
        base = self._base / key
        return {path.relative_to(base).as_posix(): path.stat().st_size for path in base.rglob("*") if path.is_file()}

    def put_tree(self, directory: Path, key: str, manifest: Manifest) -> None:
        """Move `directory` to `key` by one rename; from another filesystem it is copied beside it first."""
        target = self._base / key
        with translate_write_errors(target):
            if target.is_dir():
                if tree_manifest(target) == manifest:
                    return
                self.remove(key)
            target.parent.mkdir(parents=True, exist_ok=True)
            copy = self.scratch() / uuid4().hex
            try:
                if directory.stat().st_dev != target.parent.stat().st_dev:
                    _copy_files(directory, manifest, copy)
                    directory = copy
                os.rename(directory, target)
            except OSError as error:
                # Not empty: another process put the same content here since the look.
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            finally:
                shutil.rmtree(copy, ignore_errors=True)  # A failed copy must not go on filling the disk.

    def get_tree(self, key: str, manifest: Manifest, into: Path) -> None:
        """Copy the files, so that the reader may change its own."""
        with translate_write_errors(into):
            try:
                _copy_files(self._base / key, manifest, into)
            except FileNotFoundError as error:
                raise DamagedError(f"{error.filename}: missing") from error

    def folder(self, key: str) -> Path | None:
        """The folder itself."""
        return self._base / key


def _copy_files(source: Path, manifest: Manifest, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for entry in manifest.files:
        path = target / entry.name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / entry.name, path)
