"""Verified copies of trees, the folders that a manifest lists, and folders to make them in."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from hand1000.core.errors import translate_write_errors
from hand1000.storage.backend import StorageBackend
from hand1000.storage.digests import OTHER_BYTES, DamagedError, Manifest
from hand1000.storage.verification import damaged_entries

_MAX_DOWNLOADS = 2


def download_missing(backend: StorageBackend, key: str, manifest: Manifest, folder: Path) -> None:
    """Copy the files of the tree at `key` that `folder` does not hold yet, and verify their sha256.

    A file that arrives damaged is copied once more.

    Raises:
        DamagedError: The storage lacks a file, or has other bytes; the message names the file.
    """
    verified: set[str] = set()
    for _ in range(_MAX_DOWNLOADS):
        missing = damaged_entries(folder, manifest, known=verified)
        if not missing:
            return
        verified |= backend.get_tree(key, manifest.model_copy(update={"files": missing}), folder)
    if damaged := damaged_entries(folder, manifest, known=verified):
        raise DamagedError(f"{backend.root}/{key}/{damaged[0].name}: {OTHER_BYTES}; run again to compute it")


@contextlib.contextmanager
def workspace(backend: StorageBackend) -> Iterator[Path]:
    """Provide an empty folder, removed afterwards, from which the backend can move files without copying them."""
    path = backend.scratch_dir / uuid4().hex
    with translate_write_errors(path):
        path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
