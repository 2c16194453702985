"""The storage below an artifact store: a folder or a bucket's prefix, with the same methods.

Keys are relative paths with `/`. A *tree* is the files of a folder below a key, listed by a manifest that the store
keeps elsewhere. A backend need not write a tree atomically, because the store writes the manifest after it.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from uuid import uuid4

from hand1000.core.errors import Hand1000Error, translate_write_errors
from hand1000.storage.digests import DamagedError, Manifest, StoredFile, tree_manifest
from hand1000.storage.files import write_bytes
from hand1000.storage.keys import safe_join
from hand1000.storage.s3 import S3Backend
from hand1000.storage.scratch import process_scratch


class LocalBackend:
    """A folder of this machine, or one that several machines mount.

    Every method raises `Hand1000Error` when the storage refuses.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._base = Path(root)

    @cached_property
    def scratch_dir(self) -> Path:
        """A temporary folder below the root, so that its content can be moved in place by a rename."""
        return process_scratch(self._base / "scratch")

    def read(self, key: str) -> bytes | None:
        """Return the bytes at `key`, or None."""
        try:
            return (self._base / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise Hand1000Error(f"{self._base / key}: cannot be read: {error.strerror}") from error

    def write(self, key: str, data: bytes) -> None:
        """Write `data` to `key` atomically."""
        write_bytes(self._base / key, data)

    def mark_used(self, key: str, data: bytes) -> None:
        """Renew the time of the file at `key`, which has these bytes, if the storage permits it."""
        with contextlib.suppress(OSError):
            os.utime(self._base / key)

    def list_files(self, key: str) -> Iterator[StoredFile]:
        """Yield the file `key`, or all files below it, also those that are only being written.

        A file that vanishes in the meantime is skipped.
        """
        start = self._base / key
        folders = [("", (), (str(start),))] if start.is_file() else os.walk(start)
        for folder, _, names in folders:
            for name in names:
                path = os.path.join(folder, name)
                with contextlib.suppress(FileNotFoundError):
                    status = os.lstat(path)
                    yield StoredFile(Path(path).relative_to(self._base).as_posix(), status.st_size, status.st_mtime)

    def remove(self, key: str) -> None:
        """Remove `key` and everything below it, if there is anything."""
        path = self._base / key
        trash = self.scratch_dir / uuid4().hex
        with translate_write_errors(path):
            try:
                os.rename(path, trash)  # First out of sight, so that no other process sees half of it.
            except (FileNotFoundError, NotADirectoryError):
                return
            if trash.is_dir():
                shutil.rmtree(trash)
            else:
                trash.unlink()

    def file_sizes(self, key: str) -> dict[str, int]:
        """Return the size in bytes of each file of the tree at `key`, by its name."""
        base = self._base / key
        return {path.relative_to(base).as_posix(): path.stat().st_size for path in base.rglob("*") if path.is_file()}

    def put_tree(self, directory: Path, key: str, manifest: Manifest) -> None:
        """Move `directory` to `key` by one rename; from another filesystem it is first copied to the scratch folder."""
        target = self._base / key
        with translate_write_errors(target):
            if target.is_dir():
                if tree_manifest(target) == manifest:
                    return
                self.remove(key)
            target.parent.mkdir(parents=True, exist_ok=True)
            copy = self.scratch_dir / uuid4().hex
            try:
                if directory.stat().st_dev != target.parent.stat().st_dev:
                    _copy_files(directory, manifest, copy)
                    directory = copy
                os.rename(directory, target)
            except OSError as error:
                # The target is not empty: another process has stored the same content in the meantime.
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            finally:
                shutil.rmtree(copy, ignore_errors=True)  # A failed copy must not keep the disk full.

    def get_tree(self, key: str, manifest: Manifest, target: Path) -> None:
        """Copy the files of `manifest` from `key` to the folder `target`; raise `DamagedError` if one is missing."""
        with translate_write_errors(target):
            try:
                _copy_files(self._base / key, manifest, target)
            except FileNotFoundError as error:
                raise DamagedError(f"{error.filename}: missing") from error

    def describe_kept_copies(self) -> list[str]:
        """Return one line for each kind of copy that the storage keeps of removed files."""
        return []

    def local_path(self, key: str) -> Path | None:
        """Return the tree at `key` as a folder that can be read in place."""
        return self._base / key


def _copy_files(source: Path, manifest: Manifest, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for entry in manifest.files:
        path = safe_join(target, entry.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(safe_join(source, entry.name), path)


StorageBackend = LocalBackend | S3Backend
