"""The states of unfinished tasks in an artifact store."""

import logging
import shutil
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from pydantic import ValidationError

from hand1000.core.errors import translate_write_errors
from hand1000.storage.backend import StorageBackend
from hand1000.storage.digests import DamagedError, Manifest, tree_manifest
from hand1000.storage.files import replace_directory
from hand1000.storage.records import decode_record, encode_record
from hand1000.storage.trees import download_missing, workspace

logger = logging.getLogger(__name__)

_DEAD_SECONDS = 3600
"""Age of a state that nothing refers to and whose writer is dead: the reference is written right after it."""


class _State(NamedTuple):
    folder: str
    manifest: Manifest


class ArtifactCheckpoint:
    """The last saved state of an unfinished task, a `CheckpointStore`.

    Each state is a folder of its own, so that two processes with the same task remove no state of each other's.
    `current.json` names the valid one and is written last.
    """

    def __init__(self, backend: StorageBackend, key: str) -> None:
        self._backend = backend
        self._key = key
        self._pointer = f"{key}/current.json"

    def workspace(self) -> AbstractContextManager[Path]:
        """Provide an empty folder, removed afterwards, from which `save` can move files without copying them."""
        return workspace(self._backend)

    def save(self, directory: Path, digests: Mapping[str, str] | None = None) -> None:
        """Replace the last state by the files of `directory`, which may be moved away; see `CheckpointStore`."""
        manifest = tree_manifest(directory, digests)
        previous = self._read()
        folder = f"{manifest.digest[:32]}-{uuid4().hex[:8]}"
        self._backend.put_tree(directory, f"{self._key}/{folder}", manifest)
        state = {"folder": folder, "manifest": manifest.model_dump(mode="json")}
        self._backend.write(self._pointer, encode_record(self._pointer, state))
        if previous is not None:
            self._backend.remove(f"{self._key}/{previous.folder}")
        self._remove_dead(folder)

    def restore(self, directory: Path, *, read_only: bool = False) -> bool:
        """Replace `directory` by the last state; return False if there is none, or a damaged one, with a warning.

        With `read_only` its files may be links to the stored ones, which the caller must not change.
        """
        failed: bytes | None = None
        try:
            while (data := self._backend.read(self._pointer)) is not None:
                try:
                    state = self._parse(data)
                    key = f"{self._key}/{state.folder}"
                    _copy_verified(self._backend, key, state.manifest, directory, link=read_only)
                    return True
                except DamagedError:
                    if data == failed:
                        raise
                    failed = data  # Another process may have replaced the state in the meantime.
        except DamagedError as error:
            logger.warning("skipped a damaged checkpoint: %s", error)
        return False

    def clear(self) -> None:
        """Remove every state, because the task is finished; also what an interrupted call left."""
        self._backend.remove(self._key)

    def _read(self) -> _State | None:
        try:
            data = self._backend.read(self._pointer)
            return None if data is None else self._parse(data)
        except DamagedError:
            return None

    def _parse(self, data: bytes) -> _State:
        state = decode_record(self._pointer, data)
        try:
            return _State(str(state["folder"]), Manifest.model_validate(state["manifest"]))
        except (ValidationError, KeyError, TypeError) as error:
            raise DamagedError(f"{self._backend.root}/{self._pointer}: not a checkpoint of hand1000") from error

    def _remove_dead(self, current: str) -> None:
        """Remove the states that nothing refers to and nobody can be writing."""
        newest: dict[str, float] = {}
        for file in self._backend.list_files(self._key):
            folder, _, name = file.key.removeprefix(f"{self._key}/").partition("/")
            if name and folder != current:
                newest[folder] = max(file.modified, newest.get(folder, 0.0))
        for folder, modified in newest.items():
            if time.time() - modified > _DEAD_SECONDS:
                self._backend.remove(f"{self._key}/{folder}")


def _copy_verified(backend: StorageBackend, key: str, manifest: Manifest, target: Path, *, link: bool) -> None:
    """Copy or link a tree to `target`, which changes only once all of the tree has arrived and is verified."""
    with translate_write_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    partial_copy = target.with_name(f".{target.name}.{uuid4().hex}.part")
    try:
        if link:
            backend.link_tree(key, manifest, partial_copy)
        download_missing(backend, key, manifest, partial_copy)
        replace_directory(partial_copy, target)
    finally:
        shutil.rmtree(partial_copy, ignore_errors=True)
