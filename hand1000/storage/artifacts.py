"""The artifact store: the results of a run, named by their content, in a folder or an S3 bucket.

docs/architecture.md has the layout below the root. A tree is written first and the small object that refers to it
last. A process killed at any point therefore leaves the old content or the new one.
"""

import contextlib
import json
import logging
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import ValidationError

from hand1000.core.errors import Hand1000Error, translate_write_errors
from hand1000.storage.backend import LocalBackend, StorageBackend
from hand1000.storage.cache import KeyValueCache, node_cached_dir
from hand1000.storage.digests import DamagedError, FileEntry, Manifest, canonical_json, digest_file, tree_manifest
from hand1000.storage.files import replace_directory
from hand1000.storage.s3 import S3Backend

logger = logging.getLogger(__name__)

_IDENTIFIER = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_ARTIFACT = re.compile(rf"artifacts/{_IDENTIFIER.pattern}/[0-9a-f]{{64}}")


def open_store(root: str) -> "ArtifactStore":
    """Return the store at `root`: a folder, which need not exist yet, or `s3://bucket/prefix`.

    A process has one store for each root, so that it downloads an artifact of a bucket once.

    Raises:
        Hand1000Error: A URL that is not S3's, or one without a bucket.
    """
    if "://" in root:
        return _open_store(S3Backend, root.rstrip("/"))
    return _open_store(LocalBackend, os.path.abspath(os.path.expanduser(root)))


@cache
def _open_store(backend: Callable[[str], StorageBackend], root: str) -> "ArtifactStore":
    return ArtifactStore(backend(root))


class ArtifactStore:
    """Artifacts, the results that refer to them, and the checkpoints of unfinished tasks.

    Every method raises `Hand1000Error` if the storage refuses: no space, permission, bucket or connection.
    """

    def __init__(self, backend: StorageBackend) -> None:
        self.root = backend.root
        self.backend = self._backend = backend
        self._fetched: dict[str, Path] = {}
        self._fetch_lock = threading.Lock()

    def publish(self, kind: str, directory: Path) -> str:
        """Store the files of `directory`, which may be moved away, and return `<root>/artifacts/<kind>/<sha256>`."""
        manifest = tree_manifest(directory)
        key = f"artifacts/{_validated(kind, _IDENTIFIER, 'kind')}/{manifest.digest}"
        address = f"{self.root}/{key}"
        if not self.is_complete(address):
            self._backend.put_tree(directory, key, manifest)
            self._backend.write(f"{key}.json", canonical_json(manifest).encode())
        return address

    def fetch(self, address: str) -> Path:
        """Return the artifact as a folder, which the caller must not change.

        An artifact of a bucket is downloaded once for each process, or once for each node (`node_cached_dir`), and
        every file is verified against its sha256. One of a folder is read in place, after a check of the file sizes.

        Raises:
            Hand1000Error: The artifact is missing, incomplete or damaged; the message names the file.
        """
        with self._fetch_lock:
            if address not in self._fetched:
                manifest = self._verified_manifest(address)
                key = self._key(address)
                folder = self._backend.local_path(key)
                if folder is not None:
                    return folder
                download = partial(_download_missing, self._backend, key, manifest)
                self._fetched[address] = node_cached_dir(manifest.digest, download)
            return self._fetched[address]

    def is_complete(self, address: str) -> bool:
        """Return whether the artifact's manifest exists and its files have the sizes that it states."""
        try:
            self._verified_manifest(address)
        except DamagedError:
            return False
        return True

    def put_result(self, task: str, key: str, record: dict[str, Any]) -> None:
        """Record the artifact `record["address"]`, with facts about it, as what `task` makes of the inputs of `key`."""
        # The stored address is relative to the root, which may be moved or mounted elsewhere.
        artifact = self._key(record["address"])
        data = canonical_json({**record, "address": artifact}).encode()
        self._backend.write(f"{_entry('results', task, key)}.json", data)
        self._backend.write(_provenance_key(artifact), data)

    def get_result(self, task: str, key: str) -> dict[str, Any] | None:
        """Return the record of `put_result`, or None if there is none or its artifact is not complete any more."""
        name = f"{_entry('results', task, key)}.json"
        try:
            data = self._backend.read(name)
            if data is None:
                return None
            record = json.loads(data)
            if not _ARTIFACT.fullmatch(record["address"]):
                raise ValueError(f"{record['address']!r} is not an artifact")
            record["address"] = f"{self.root}/{record['address']}"
            self._verified_manifest(record["address"])
            self._backend.mark_used(name, data)
        except (DamagedError, ValueError, TypeError, KeyError) as error:
            logger.warning("%s/%s: ignored, so the task runs again: %r", self.root, name, error)
            return None
        return record

    def provenance(self, address: str) -> dict[str, Any]:
        """Return the record of the task that published the artifact last, or its address alone if there is none."""
        data = self._backend.read(_provenance_key(self._key(address)))
        return {**(json.loads(data) if data else {}), "address": address}

    def checkpoint(self, task: str, key: str) -> "ArtifactCheckpoint":
        """Return the checkpoint of `task` for the inputs that `key` digests."""
        return ArtifactCheckpoint(self._backend, _entry("checkpoints", task, key))

    def key_value_cache(self, kind: str, key: str) -> KeyValueCache:
        """Return the cache of one kind of values, such as the captions of the captioner that `key` digests."""
        return KeyValueCache(self._backend, _entry("caches", kind, key))

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Path]:
        """Provide an empty folder, removed afterwards, from which `publish` can move files without copying them."""
        with _workspace(self._backend) as path:
            yield path

    def _key(self, address: str) -> str:
        key = address.removeprefix(f"{self.root}/")
        if not _ARTIFACT.fullmatch(key):
            raise Hand1000Error(f"{address}: not an artifact of {self.root}; give <root>/artifacts/<kind>/<sha256>")
        return key

    def _verified_manifest(self, address: str) -> Manifest:
        key = self._key(address)
        manifest = _read_manifest(self._backend, f"{key}.json")
        if manifest is None:
            raise DamagedError(f"{address}: no such artifact, or its writing never finished; run again to compute it")
        if manifest.digest != key.rpartition("/")[2]:
            raise DamagedError(f"{address}.json: not the manifest of this artifact; run again to compute it")
        sizes = self._backend.file_sizes(key)
        for entry in manifest.files:
            if sizes.get(entry.name) != entry.size:
                state = f"{sizes[entry.name]} of {entry.size} bytes" if entry.name in sizes else "missing"
                raise DamagedError(f"{address}/{entry.name}: {state}; run again to compute it")
        return manifest


class ArtifactCheckpoint:
    """The last saved state of an unfinished task, a `CheckpointStore`.

    The states are folders named by their content; `current.json` is the manifest of the valid one and is written last.
    """

    def __init__(self, backend: StorageBackend, key: str) -> None:
        self._backend = backend
        self._key = key
        self._pointer = f"{key}/current.json"

    def workspace(self) -> contextlib.AbstractContextManager[Path]:
        """Provide an empty folder, removed afterwards, from which `save` can move files without copying them."""
        return _workspace(self._backend)

    def save(self, directory: Path) -> None:
        """Replace the last state by the files of `directory`, which may be moved away."""
        manifest = tree_manifest(directory)
        try:
            previous = _read_manifest(self._backend, self._pointer)
        except DamagedError:
            previous = None
        self._backend.put_tree(directory, f"{self._key}/{manifest.digest}", manifest)
        self._backend.write(self._pointer, canonical_json(manifest).encode())
        if previous is not None and previous != manifest:
            self._backend.remove(f"{self._key}/{previous.digest}")

    def restore(self, directory: Path) -> bool:
        """Replace `directory` by the last state; return False if there is none, or a damaged one, with a warning."""
        try:
            manifest = _read_manifest(self._backend, self._pointer)
            if manifest is None:
                return False
            _copy_verified(self._backend, f"{self._key}/{manifest.digest}", manifest, directory)
        except DamagedError as error:
            logger.warning("skipped a damaged checkpoint: %s", error)
            return False
        return True

    def clear(self) -> None:
        """Remove every state, because the task is finished; also what an interrupted call left."""
        self._backend.remove(self._key)


@contextlib.contextmanager
def _workspace(backend: StorageBackend) -> Iterator[Path]:
    path = backend.scratch_dir / uuid4().hex
    with translate_write_errors(path):
        path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _entry(folder: str, name: str, key: str) -> str:
    return f"{folder}/{_validated(name, _IDENTIFIER, 'name')}/{_validated(key, _KEY, 'key')}"


def _provenance_key(artifact: str) -> str:
    return f"provenance/{artifact.removeprefix('artifacts/')}.json"


def _validated(text: str, pattern: re.Pattern[str], role: str) -> str:
    if not pattern.fullmatch(text):
        raise Hand1000Error(f"{text!r} is not a valid {role}; it must match {pattern.pattern}")
    return text


def _read_manifest(backend: StorageBackend, key: str) -> Manifest | None:
    data = backend.read(key)
    try:
        return None if data is None else Manifest.model_validate_json(data)
    except ValidationError as error:
        raise DamagedError(f"{backend.root}/{key}: not a manifest: {error.errors()[0]['msg']}") from error


def _copy_verified(backend: StorageBackend, key: str, manifest: Manifest, target: Path) -> None:
    """Copy a tree to `target`, which changes only once all of the tree has arrived and is verified."""
    with translate_write_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    partial_copy = target.with_name(f".{target.name}.{uuid4().hex}.part")
    try:
        _download_missing(backend, key, manifest, partial_copy)
        replace_directory(partial_copy, target)
    finally:
        shutil.rmtree(partial_copy, ignore_errors=True)


def _download_missing(backend: StorageBackend, key: str, manifest: Manifest, folder: Path) -> None:
    """Copy the files of a tree that `folder` does not hold yet, and verify their sha256."""

    def is_valid(entry: FileEntry) -> bool:
        return (folder / entry.name).is_file() and digest_file(folder / entry.name) == entry.sha256

    missing = [entry for entry in manifest.files if not is_valid(entry)]
    backend.get_tree(key, manifest.model_copy(update={"files": tuple(missing)}), folder)
    for entry in missing:
        if not is_valid(entry):
            path = f"{backend.root}/{key}/{entry.name}"
            raise DamagedError(f"{path}: its bytes are not those that were written; remove this file and run again")
