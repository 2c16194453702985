"""The artifact store: the results of a run, named by their content, in a folder or an S3 bucket.

docs/architecture.md has the layout below the root. A tree is written first and the small object that refers to it
last. A process killed at any point therefore leaves the old content or the new one.
"""

import contextlib
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hand1000.core.errors import Hand1000Error
from hand1000.storage.backend import LocalBackend, StorageBackend
from hand1000.storage.cache import KeyValueCache, node_cached_dir
from hand1000.storage.checkpoints import ArtifactCheckpoint
from hand1000.storage.digests import OTHER_BYTES, DamagedError, Manifest, canonical_json, tree_manifest
from hand1000.storage.records import decode_record, encode_record
from hand1000.storage.s3 import S3Backend
from hand1000.storage.scratch import remove_abandoned
from hand1000.storage.trees import download_missing, workspace
from hand1000.storage.verification import find_damage

logger = logging.getLogger(__name__)

LATE_READ_DELAYS = (0.1, 0.4, 1.0)
"""Seconds to wait for an artifact that another machine has just written to a bucket, before it counts as missing."""

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
        # An artifact of this name is there already, whole or damaged, if the task ran before.
        if not (self.is_complete(address) and self._backend.verify_tree(key, manifest)):
            self._backend.put_tree(directory, key, manifest)
            self._backend.write(f"{key}.json", canonical_json(manifest).encode())
        return address

    def fetch(self, address: str, *, recheck: bool = False) -> Path:
        """Return the artifact as a folder, which the caller must not change.

        An artifact of a bucket is downloaded once for each process, or once for each node (`node_cached_dir`). One of a
        folder is read in place. Every file is verified against its sha256, once in a process unless it changes.

        Args:
            address: What `publish` returned.
            recheck: Whether to verify also the files that this process has verified before.

        Raises:
            Hand1000Error: The artifact is missing, incomplete or damaged; the message names the file.
        """
        key = self._key(address)
        with self._fetch_lock:
            folder = self._backend.local_path(key) or self._fetched.get(address)
            if folder is None or not self._backend.lists_late:
                manifest = self._verified_manifest(address, wait=True)
            if folder is None:
                download = partial(download_missing, self._backend, key, manifest)
                try:
                    folder = self._fetched[address] = node_cached_dir(manifest.digest, download, manifest)
                except DamagedError:
                    self._backend.report_damage(key)
                    raise
        if recheck and (name := find_damage(folder, self._read_manifest(address), fresh=True)):
            raise DamagedError(f"{folder / name}: {OTHER_BYTES}; run again to compute it")
        return folder

    def is_complete(self, address: str) -> bool:
        """Return whether the artifact's manifest exists and its files are what it states, in a bucket their sizes."""
        try:
            self._verified_manifest(address)
        except DamagedError:
            return False
        return True

    def put_result(self, task: str, key: str, record: dict[str, Any]) -> None:
        """Record the artifact `record["address"]`, with facts about it, as what `task` makes of the inputs of `key`."""
        # The stored address is relative to the root, which may be moved or mounted elsewhere.
        artifact = self._key(record["address"])
        value = {**record, "address": artifact}
        # The result last: while it is missing, the task runs again and also completes the provenance.
        for name in (_provenance_key(artifact), f"{_entry('results', task, key)}.json"):
            self._backend.write(name, encode_record(name, value))

    def get_result(self, task: str, key: str) -> dict[str, Any] | None:
        """Return the record of `put_result`; None if there is none or its artifact is not what was written any more."""
        name = f"{_entry('results', task, key)}.json"
        try:
            data = self._backend.read(name)
            if data is None:
                return None
            record = decode_record(name, data)
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
        name = _provenance_key(self._key(address))
        try:
            data = self._backend.read(name)
            return {**(decode_record(name, data) if data else {}), "address": address}
        except (DamagedError, TypeError) as error:
            logger.warning("%s/%s: ignored: %s", self.root, name, error)
            return {"address": address}

    def checkpoint(self, task: str, key: str) -> "ArtifactCheckpoint":
        """Return the checkpoint of `task` for the inputs that `key` digests."""
        return ArtifactCheckpoint(self._backend, _entry("checkpoints", task, key))

    def key_value_cache(self, kind: str, key: str) -> KeyValueCache:
        """Return the cache of one kind of values, such as the captions of the captioner that `key` digests."""
        return KeyValueCache(self._backend, _entry("caches", kind, key))

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Path]:
        """Provide an empty folder, removed afterwards, from which `publish` can move files without copying them."""
        with workspace(self._backend) as path:
            yield path

    def remove_abandoned(self) -> None:
        """Remove the temporary folders of processes that were killed, where this one has not needed its own yet."""
        folder = self._backend.local_path("scratch")
        remove_abandoned(folder)

    def _key(self, address: str) -> str:
        key = address.removeprefix(f"{self.root}/")
        if not _ARTIFACT.fullmatch(key):
            raise Hand1000Error(f"{address}: not an artifact of {self.root}; give <root>/artifacts/<kind>/<sha256>")
        return key

    def _read_manifest(self, address: str, *, wait: bool = False) -> Manifest:
        key = f"{self._key(address)}.json"
        delays = LATE_READ_DELAYS if wait and self._backend.lists_late else ()
        data = self._backend.read(key)
        for delay in delays:
            if data is not None:
                break
            time.sleep(delay)
            data = self._backend.read(key)
        if data is None:
            raise DamagedError(f"{address}: no such artifact, or its writing never finished; run again to compute it")
        try:
            manifest = Manifest.model_validate_json(data)
        except ValidationError as error:
            raise DamagedError(f"{self.root}/{key}: not a manifest: {error.errors()[0]['msg']}") from error
        if f"{manifest.digest}.json" != key.rpartition("/")[2]:
            raise DamagedError(f"{address}.json: not the manifest of this artifact; run again to compute it")
        return manifest

    def _verified_manifest(self, address: str, *, wait: bool = False) -> Manifest:
        manifest = self._read_manifest(address, wait=wait)
        if damage := self._backend.find_damage(self._key(address), manifest):
            raise DamagedError(f"{address}/{damage}; run again to compute it")
        return manifest


def _entry(folder: str, name: str, key: str) -> str:
    return f"{folder}/{_validated(name, _IDENTIFIER, 'name')}/{_validated(key, _KEY, 'key')}"


def _provenance_key(artifact: str) -> str:
    return f"provenance/{artifact.removeprefix('artifacts/')}.json"


def _validated(text: str, pattern: re.Pattern[str], role: str) -> str:
    if not pattern.fullmatch(text):
        raise Hand1000Error(f"{text!r} is not a valid {role}; it must match {pattern.pattern}")
    return text
