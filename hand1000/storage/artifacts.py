"""The artifact store: what a run makes, named by its content, in a folder or an S3 bucket.

Layout below the root (docs/architecture.md, "Where each thing lives"): a tree is written first and the small object
that makes it count last, so that a process killed at any point leaves what was there or what should be there.
"""

import contextlib
import json
import logging
import os
import re
import shutil
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import ValidationError

from hand1000.core.errors import Hand1000Error, translate_write_errors
from hand1000.storage.backend import DamagedError, LocalBackend, StorageBackend
from hand1000.storage.cache import KeyValueCache
from hand1000.storage.digests import FileEntry, Manifest, canonical_json, digest_file, tree_manifest
from hand1000.storage.files import replace_directory
from hand1000.storage.node_cache import node_cached_dir
from hand1000.storage.s3 import S3Backend

logger = logging.getLogger(__name__)

_IDENTIFIER = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_ARTIFACT = re.compile(rf"artifacts/{_IDENTIFIER.pattern}/[0-9a-f]{{64}}")


def open_store(root: str) -> "ArtifactStore":
    """The store at `root`: a folder, which need not be there yet, or `s3://bucket/prefix`.

    One process has one store a root, so that an artifact of a bucket is downloaded once.

    Raises:
        Hand1000Error: a URL that is not S3's, or one without a bucket.
    """
    if "://" not in root:
        return _opened(os.path.abspath(os.path.expanduser(root)))
    if not re.match(r"s3://[^/]+(/|$)", root):
        raise Hand1000Error(f"{root}: not a place for artifacts; give a folder or s3://bucket/prefix")
    return _opened(root.rstrip("/"))


@cache
def _opened(root: str) -> "ArtifactStore":
    return ArtifactStore(S3Backend(root) if root.startswith("s3://") else LocalBackend(root))


class ArtifactStore:
    """Artifacts, the results that name them, and the checkpoints of unfinished tasks.

    Every method raises `Hand1000Error` when the place refuses: no space, no permission, no bucket, no connection.
    """

    def __init__(self, place: StorageBackend) -> None:
        self.root = place.root
        self._place = place
        self._fetched: dict[str, Path] = {}
        self._fetching = threading.Lock()

    def publish(self, kind: str, directory: Path) -> str:
        """Keep the files of `directory` as an artifact; the folder is given away and may be moved.

        Returns:
            the address, `<root>/artifacts/<kind>/<sha256>`, equal for equal content.
        """
        folder = f"artifacts/{_valid(kind, _IDENTIFIER, 'kind')}"
        manifest = tree_manifest(directory)
        key = f"{folder}/{manifest.digest}"
        address = f"{self.root}/{key}"
        if not self.complete(address):
            self._place.put_tree(directory, key, manifest)
            self._place.write(f"{key}.json", canonical_json(manifest).encode())
        return address

    def fetch(self, address: str) -> Path:
        """The artifact as a folder to read from, not to change.

        A bucket's is downloaded once a process, or once a node (`node_cache`), and each file held against its sha256. A
        folder's is read in place, after a look at the sizes of its files.

        Raises:
            Hand1000Error: the artifact is not there, incomplete or damaged; the message names the file.
        """
        with self._fetching:
            if address in self._fetched:
                return self._fetched[address]
            manifest = self._intact(address)
            key = self._key(address)
            folder = self._place.folder(key)
            if folder is None:
                folder = node_cached_dir(manifest.digest, lambda into: _complete(self._place, key, manifest, into))
                self._fetched[address] = folder
            return folder

    def complete(self, address: str) -> bool:
        """Whether the artifact's manifest is there and its files with the sizes that it states."""
        try:
            self._intact(address)
        except DamagedError:
            return False
        return True

    def digest_of(self, address: str) -> str:
        """The sha256 that names the artifact's content."""
        return self._key(address).rpartition("/")[2]

    def remember(self, task: str, key: str, record: dict[str, Any]) -> None:
        """Keep what `task` made from the inputs that `key` digests: `record["address"]` and what is known of it."""
        # The address is kept relative to the root, which may be moved or mounted elsewhere.
        relative = {**record, "address": self._key(record["address"])}
        self._place.write(_result_key(task, key), canonical_json(relative).encode())
        self._place.write(_making_key(relative["address"]), canonical_json(relative).encode())

    def making(self, address: str) -> dict[str, Any]:
        """The record of the task that made the artifact last; nothing but its address if that is not known."""
        data = self._place.read(_making_key(self._key(address)))
        return {**(json.loads(data) if data else {}), "address": address}

    def recall(self, task: str, key: str) -> dict[str, Any] | None:
        """The record of `remember`, or None where there is none or its artifact is not complete any more."""
        name = _result_key(task, key)
        try:
            data = self._place.read(name)
            if data is None:
                return None
            record = json.loads(data)
            if not _ARTIFACT.fullmatch(record["address"]):
                raise ValueError(f"{record['address']!r} is no artifact")
            record["address"] = f"{self.root}/{record['address']}"
            self._intact(record["address"])
        except (DamagedError, ValueError, TypeError, KeyError) as error:
            logger.warning("%s/%s: made again, since it is of no use: %r", self.root, name, error)
            return None
        return record

    def checkpoint(self, task: str, key: str) -> "Checkpoint":
        """The saved state of `task` on the inputs that `key` digests."""
        return Checkpoint(self._place, f"checkpoints/{_valid(task, _IDENTIFIER, 'task')}/{_valid(key, _KEY, 'key')}")

    def ledger(self, kind: str, key: str) -> KeyValueCache:
        """The values of one kind that `key` tells from others, such as the captions of one captioner."""
        return KeyValueCache(self._place, f"ledgers/{_valid(kind, _IDENTIFIER, 'kind')}/{_valid(key, _KEY, 'key')}")

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Path]:
        """A fresh folder to build in, near the root so that `publish` can move what is in it; removed afterwards."""
        path = self._place.scratch() / uuid4().hex
        path.mkdir()
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def _key(self, address: str) -> str:
        key = address.removeprefix(f"{self.root}/")
        if not _ARTIFACT.fullmatch(key):
            raise Hand1000Error(f"{address}: not an artifact of {self.root}; give <root>/artifacts/<kind>/<sha256>")
        return key

    def _intact(self, address: str) -> Manifest:
        key = self._key(address)
        manifest = _read_manifest(self._place, f"{key}.json")
        if manifest is None:
            raise DamagedError(f"{address}: no such artifact, or its writing was never finished; run again to make it")
        if manifest.digest != self.digest_of(address):
            raise DamagedError(f"{address}.json: not the manifest of this artifact; run again to make it")
        _check_sizes(self._place, key, manifest)
        return manifest


class Checkpoint:
    """The last saved state of an unfinished task.

    Versions lie side by side, each named by its content; `current.json` is the manifest of the one that counts and
    is written last.
    """

    def __init__(self, place: StorageBackend, key: str) -> None:
        self._place = place
        self._key = key
        self._pointer = f"{key}/current.json"

    def save(self, directory: Path) -> None:
        """Put the files of `directory`, which is given away, in place of the last state."""
        manifest = tree_manifest(directory)
        try:
            before = _read_manifest(self._place, self._pointer)
        except DamagedError:
            before = None
        self._place.put_tree(directory, f"{self._key}/{manifest.digest}", manifest)
        self._place.write(self._pointer, canonical_json(manifest).encode())
        if before is not None and before != manifest:
            self._place.remove(f"{self._key}/{before.digest}")

    def restore(self, directory: Path) -> bool:
        """Copy the last state to `directory`, in place of what is there.

        Returns:
            False where no state is there, or a damaged one, which is told in a warning and passed over.
        """
        try:
            manifest = _read_manifest(self._place, self._pointer)
            if manifest is None:
                return False
            _get_verified(self._place, f"{self._key}/{manifest.digest}", manifest, directory)
        except DamagedError as error:
            logger.warning("damaged checkpoint passed over: %s", error)
            return False
        return True

    def clear(self) -> None:
        """Remove the state: the task is finished."""
        self._place.remove(self._pointer)
        self._place.remove(self._key)


def _result_key(task: str, key: str) -> str:
    return f"results/{_valid(task, _IDENTIFIER, 'task')}/{_valid(key, _KEY, 'key')}.json"


def _making_key(artifact: str) -> str:
    return f"makings/{artifact.removeprefix('artifacts/')}.json"


def _valid(text: str, pattern: re.Pattern[str], what: str) -> str:
    if not pattern.fullmatch(text):
        raise Hand1000Error(f"{text!r} is no name for a {what}; it must match {pattern.pattern}")
    return text


def _read_manifest(place: StorageBackend, key: str) -> Manifest | None:
    data = place.read(key)
    try:
        return None if data is None else Manifest.model_validate_json(data)
    except ValidationError as error:
        raise DamagedError(f"{place.root}/{key}: not a manifest: {error.errors()[0]['msg']}") from error


def _check_sizes(place: StorageBackend, key: str, manifest: Manifest) -> None:
    sizes = place.sizes(key)
    for entry in manifest.files:
        if sizes.get(entry.name) != entry.size:
            found = f"{sizes[entry.name]} of {entry.size} bytes" if entry.name in sizes else "missing"
            raise DamagedError(f"{place.root}/{key}/{entry.name}: {found}; run again to make it anew")


def _get_verified(place: StorageBackend, key: str, manifest: Manifest, into: Path) -> None:
    """Copy a tree to `into`: only once all of it is there and is what was written."""
    with translate_write_errors(into):
        into.parent.mkdir(parents=True, exist_ok=True)
    building = into.with_name(f".{into.name}.{uuid4().hex}.part")
    try:
        _complete(place, key, manifest, building)
        replace_directory(building, into)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _complete(place: StorageBackend, key: str, manifest: Manifest, folder: Path) -> None:
    """Get the files of a tree that `folder` does not hold yet."""

    def whole(entry: FileEntry) -> bool:
        return (folder / entry.name).is_file() and digest_file(folder / entry.name) == entry.sha256

    missing = [entry for entry in manifest.files if not whole(entry)]
    place.get_tree(key, manifest.model_copy(update={"files": tuple(missing)}), folder)
    for entry in missing:
        if not whole(entry):
            raise DamagedError(
                f"{place.root}/{key}/{entry.name}: its bytes are not those that were written; "
                f"remove this file and run again"
            )
