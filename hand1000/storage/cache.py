"""Caches: copies of a bucket's content on this node, and small values by key that all runs share."""

import contextlib
import functools
import logging
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from uuid import uuid4

from pydantic import JsonValue, ValidationError

from hand1000.core.errors import Hand1000Error, translate_write_errors
from hand1000.storage.backend import StorageBackend
from hand1000.storage.digests import DamagedError, Manifest, tree_manifest
from hand1000.storage.records import decode_record, encode_record, read_record, write_record
from hand1000.storage.scratch import process_scratch
from hand1000.storage.verification import find_damage, is_intact

logger = logging.getLogger(__name__)

NODE_CACHE_VARIABLE = "HAND1000_NODE_CACHE"
"""Environment variable that names the node's cache folder. Without it each process has its own temporary copies."""

USED = "used"
"""Empty file in the folder of a `KeyValueCache`, written by each read."""

_process_cache = functools.cache(functools.partial(process_scratch, None))


def node_cached_dir(digest: str, download_missing: Callable[[Path], None], manifest: Manifest | None = None) -> Path:
    """Return a folder with the content that `digest` names, which the caller must not change.

    Processes that ask at the same time wait for the first one. A download that was killed is resumed. Every file is
    verified once in a process, and downloaded again if it is damaged.

    Args:
        digest: Digest of the content.
        download_missing: Completes a folder that may hold some of the files already, each of them whole.
        manifest: The content, if it is known before; else a record beside the folder has that of the download.
    """
    root = os.environ.get(NODE_CACHE_VARIABLE)
    if not root:
        folder = _process_cache() / uuid4().hex / digest
        download_missing(folder)
        return folder
    from filelock import FileLock

    folder = Path(root) / digest
    if _is_valid(folder, manifest):
        return folder
    with translate_write_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"), translate_write_errors(folder):
        if _is_valid(folder, manifest):
            return folder
        target = folder if folder.is_dir() else folder.with_name(f"{digest}.part")
        if target == folder:
            logger.warning("%s: damaged, so it is downloaded again", folder)
            _remove_damaged(folder, manifest)
        download_missing(target)
        if manifest is None:
            write_record(_record_path(folder), tree_manifest(target))
        if target != folder:
            os.rename(target, folder)
    return folder


def _record_path(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")


def _recorded_manifest(folder: Path) -> Manifest | None:
    try:
        return Manifest.model_validate(read_record(_record_path(folder), required=False))
    except ValidationError:
        return None


def _is_valid(folder: Path, manifest: Manifest | None) -> bool:
    manifest = manifest or (_recorded_manifest(folder) if folder.is_dir() else None)
    return manifest is not None and folder.is_dir() and not find_damage(folder, manifest)


def _remove_damaged(folder: Path, manifest: Manifest | None) -> None:
    """Remove the files of which the bytes are not known to be right."""
    manifest = manifest or _recorded_manifest(folder)
    valid = {entry.name for entry in manifest.files if is_intact(folder, entry)} if manifest else set()
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder).as_posix() not in valid:
            path.unlink(missing_ok=True)


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
                entries |= decode_record(f"{self._key}/{name}", data) if data is not None else {}
            except (DamagedError, TypeError) as error:
                logger.warning("%s/%s/%s: skipped: %s", self._backend.root, self._key, name, error)
        return entries

    def add(self, entries: Mapping[str, JsonValue]) -> None:
        """Store `entries`; they are durable once this returns."""
        self._entries |= entries
        self._backend.write(self._file, encode_record(self._file, self._entries))


def remove_cached_keys(backend: StorageBackend, keys: Collection[str]) -> None:
    """Remove the entries with these keys from all caches of a root; a damaged file is removed as a whole."""
    if not keys:
        return
    for file in list(backend.list_files("caches")):
        if file.key.endswith(".json"):
            try:
                entries = decode_record(file.key, backend.read(file.key) or b"")
                kept = {key: value for key, value in entries.items() if key not in keys}
            except (DamagedError, AttributeError):
                kept, entries = {}, None
            if not kept:
                backend.remove(file.key)
            elif kept != entries:
                backend.write(file.key, encode_record(file.key, kept))
