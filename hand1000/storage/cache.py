"""Caches: copies of a bucket's content on this node, and small values by key that all runs share."""

import contextlib
import functools
import json
import logging
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from uuid import uuid4

from pydantic import JsonValue

from hand1000.core.errors import Hand1000Error, translate_write_errors
from hand1000.storage.backend import StorageBackend
from hand1000.storage.digests import DamagedError, canonical_json
from hand1000.storage.scratch import process_scratch

logger = logging.getLogger(__name__)

NODE_CACHE_VARIABLE = "HAND1000_NODE_CACHE"
"""Environment variable that names the node's cache folder. Without it each process has its own temporary copies."""

USED = "used"
"""Empty file in the folder of a `KeyValueCache`, written by each read."""

_process_cache = functools.cache(functools.partial(process_scratch, None))


def node_cached_dir(digest: str, download_missing: Callable[[Path], None]) -> Path:
    """Return a folder with the content that `digest` names, which the caller must not change.

    Processes that ask at the same time wait for the first one. A download that was killed is resumed.

    Args:
        digest: Digest of the content.
        download_missing: Completes a folder that may hold some of the files already, each of them whole.
    """
    root = os.environ.get(NODE_CACHE_VARIABLE)
    if not root:
        folder = _process_cache() / uuid4().hex / digest
        download_missing(folder)
        return folder
    from filelock import FileLock

    folder = Path(root) / digest
    with translate_write_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            partial = folder.with_name(f"{digest}.part")
            download_missing(partial)
            with translate_write_errors(folder):
                os.rename(partial, folder)
    return folder


class KeyValueCache:
    """JSON values by key in a folder of files; each file has one writer and is complete or absent.

    Concurrent writers therefore never overwrite each other. A value is determined by its key, so it does not matter
    which of two equal entries is read.

    Args:
        backend: Storage of the folder.
        key: Key of the folder.
    """

    def __init__(self, backend: StorageBackend, key: str) -> None:
        self._backend, self._key = backend, key
        self._entries: dict[str, JsonValue] = {}
        self._file = f"{key}/{uuid4().hex}.json"

    def read(self) -> dict[str, JsonValue]:
        """Return the entries of all writers; a damaged file is skipped with a warning."""
        entries: dict[str, JsonValue] = {}
        names = sorted(self._backend.file_sizes(self._key))
        if names:
            # Retention counts from the last use. The files themselves have other writers, so that none is touched.
            with contextlib.suppress(Hand1000Error):
                self._backend.write(f"{self._key}/{USED}", b"")
        # A writer that was killed may leave a temporary file, which has another suffix.
        for name in (name for name in names if name.endswith(".json")):
            try:
                data = self._backend.read(f"{self._key}/{name}")
                entries |= json.loads(data or b"{}")
            except (DamagedError, ValueError, TypeError) as error:
                logger.warning("%s/%s/%s: skipped: %s", self._backend.root, self._key, name, error)
        return entries

    def add(self, entries: Mapping[str, JsonValue]) -> None:
        """Store `entries`; they are durable once this returns."""
        self._entries |= entries
        self._backend.write(self._file, canonical_json(self._entries).encode())


def remove_cached_keys(backend: StorageBackend, keys: Collection[str]) -> None:
    """Remove the entries with these keys from all caches of a root; a damaged file is removed as a whole."""
    if not keys:
        return
    for file in list(backend.list_files("caches")):
        if file.key.endswith(".json"):
            try:
                entries = json.loads(backend.read(file.key) or b"{}")
                kept = {key: value for key, value in entries.items() if key not in keys}
            except (DamagedError, ValueError, AttributeError):
                kept, entries = {}, None
            if not kept:
                backend.remove(file.key)
            elif kept != entries:
                backend.write(file.key, canonical_json(kept).encode())
