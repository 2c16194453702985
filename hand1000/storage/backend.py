"""The storage below an artifact store: a folder or a bucket's prefix, with the same methods.

Keys are relative paths with `/`. A *tree* is the files of a folder below a key, listed by a manifest that the store
keeps elsewhere. A backend need not write a tree atomically, because the store writes the manifest after it.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from hand1000.core.errors import Hand1000Error, translate_write_errors
from hand1000.storage.digests import DamagedError, Manifest, StoredFile, describe_damage
from hand1000.storage.files import retry_without_folder, write_bytes
from hand1000.storage.keys import safe_join
from hand1000.storage.s3 import S3Backend
from hand1000.storage.scratch import process_scratch
from hand1000.storage.verification import find_damage, is_intact


class LocalBackend:
    """A folder of this machine, or one that several machines mount.

    Every method raises `Hand1000Error` when the storage refuses.
    """

    lists_late = False
    """Whether a listing or a read may miss what was written just before."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._base = Path(root)
        self._scratch: Path | None = None

    @property
    def scratch_dir(self) -> Path:
        """A temporary folder below the root, so that its content can be moved in place by a rename."""
        if self._scratch is None or not self._scratch.is_dir():
            self._scratch = process_scratch(self._base / "scratch")
        return self._scratch

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
        write_bytes(self._base / key, data, scratch=self.scratch_dir)

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
        if not os.path.lexists(path):
            return
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
        files = self.list_files(key) if (self._base / key).is_dir() else ()
        return {file.key[len(key) + 1 :] if key else file.key: file.size for file in files}

    def find_damage(self, key: str, manifest: Manifest) -> str:
        """Return the first file of the tree at `key` that is not what was written, and why; "" if there is none.

        Every byte is read once in a process.
        """
        name = find_damage(self._base / key, manifest)
        return f"{name}: {_describe(self._base / key / name, manifest, name)}" if name else ""

    def verify_tree(self, key: str, manifest: Manifest) -> bool:
        """Return whether every byte of the tree at `key` is what was written."""
        return not self.find_damage(key, manifest)

    def report_damage(self, key: str) -> None:
        """Note that a reader found the tree at `key` damaged; `find_damage` sees it by itself."""

    def put_tree(self, directory: Path, key: str, manifest: Manifest) -> None:
        """Move `directory` to `key` by one rename; from another filesystem it is first copied to the scratch folder.

        Of a tree that is there already, damaged files are replaced one by one, so that it never vanishes from another
        process that reads it.
        """
        target = self._base / key
        with translate_write_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            copy = self.scratch_dir / uuid4().hex
            try:
                if directory.stat().st_dev != target.parent.stat().st_dev:
                    _copy_files(directory, manifest, copy)
                    directory = copy
                if not target.is_dir() and _rename_folder(directory, target):
                    return
                self._repair(directory, key, manifest)
            finally:
                shutil.rmtree(copy, ignore_errors=True)  # A failed copy must not keep the disk full.

    def _repair(self, directory: Path, key: str, manifest: Manifest) -> None:
        target = self._base / key
        for name in self.file_sizes(key).keys() - {entry.name for entry in manifest.files}:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(target / name)
        for entry in manifest.files:
            if not is_intact(target, entry):
                path = safe_join(target, entry.name)
                path.parent.mkdir(parents=True, exist_ok=True)
                if path.is_dir():
                    self.remove(f"{key}/{entry.name}")
                os.replace(safe_join(directory, entry.name), path)

    def get_tree(self, key: str, manifest: Manifest, target: Path) -> set[str]:
        """Copy the files of `manifest` from `key` to the folder `target`; raise `DamagedError` if one is missing.

        Returns:
            The names of the files whose bytes were verified on the way; here none.
        """
        with translate_write_errors(target):
            try:
                _copy_files(self._base / key, manifest, target)
            except FileNotFoundError as error:
                raise DamagedError(f"{error.filename}: missing") from error
        return set()

    def link_tree(self, key: str, manifest: Manifest, target: Path) -> None:
        """Link the files of `manifest` at `key` into the folder `target`, unverified, where the filesystem can."""
        with translate_write_errors(target):
            for entry in manifest.files:
                path = safe_join(target, entry.name)
                path.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(OSError):
                    os.link(safe_join(self._base / key, entry.name), path, follow_symlinks=False)

    def describe_kept_copies(self) -> list[str]:
        """Return one line for each kind of copy that the storage keeps of removed files."""
        return []

    def local_path(self, key: str) -> Path | None:
        """Return the tree at `key` as a folder that can be read in place."""
        return self._base / key


def _rename_folder(source: Path, target: Path) -> bool:
    """Rename a folder; return False if the target has files, because another process has stored the same content."""
    try:
        retry_without_folder(target.parent, lambda: os.rename(source, target))
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def _describe(path: Path, manifest: Manifest, name: str) -> str:
    """Say what is wrong with a file that is not what was written."""
    try:
        size = os.stat(path).st_size
    except OSError:
        return "missing"
    expected = next(entry.size for entry in manifest.files if entry.name == name)
    return describe_damage(size, expected)


def _copy_files(source: Path, manifest: Manifest, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for entry in manifest.files:
        path = safe_join(target, entry.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # It may be a link to the source.
        shutil.copyfile(safe_join(source, entry.name), path)


StorageBackend = LocalBackend | S3Backend
