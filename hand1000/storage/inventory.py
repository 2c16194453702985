"""What lies below an artifact root, in the pieces in which retention removes it.

A piece is an artifact with the records that refer to it, a checkpoint, a cache, or something that a killed process
left: files of no artifact, or records of an artifact that is gone.
"""

import logging
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from hand1000.storage.artifacts import ArtifactStore
from hand1000.storage.backend import StorageBackend
from hand1000.storage.digests import DamagedError, StoredFile
from hand1000.storage.records import decode_record

ARTIFACT, CHECKPOINT, CACHE, LEFTOVER = "artifact", "checkpoint", "cache", "leftover"
"""What a piece is; a leftover belongs to nothing."""

_READERS = 16

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Piece:
    """A part of a root that is removed as a whole.

    Attributes:
        key: Folder or file below the root that it is named by.
        role: `ARTIFACT`, `CHECKPOINT`, `CACHE` or `LEFTOVER`.
        kind: Name of the task that made it, or of the cache.
        used: When it was last written or used, in seconds since 1970.
        size: Bytes of all its files.
        records: Files that go before the folder, so that nothing ever refers to a part of it.
        traces: Files that go after it.
    """

    key: str
    role: str
    kind: str
    used: float
    size: int
    records: tuple[str, ...] = ()
    traces: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The artifact's kind and digest, which are the same wherever the root lies."""
        return self.key.partition("/")[2]


@dataclass
class _Group:
    files: list[StoredFile] = field(default_factory=list)
    records: list[str] = field(default_factory=list)
    traces: list[str] = field(default_factory=list)

    def piece(self, key: str, role: str) -> Piece:
        used = max(file.modified for file in self.files)
        size = sum(file.size for file in self.files)
        return Piece(key, role, key.split("/")[1], used, size, tuple(self.records), tuple(self.traces))


def list_pieces(store: ArtifactStore) -> list[Piece]:
    """Return all pieces of a root, ordered by their keys.

    Raises:
        Hand1000Error: The storage refuses.
    """
    backend = store.backend
    artifacts: dict[str, _Group] = defaultdict(_Group)
    leftovers: list[StoredFile] = []
    for file in backend.list_files("artifacts"):
        parts = file.key.split("/")
        if len(parts) < 3 or parts[2].startswith("."):
            leftovers.append(file)
        elif len(parts) == 3:
            artifact = artifacts[file.key.removesuffix(".json")]
            artifact.files.append(file)
            artifact.records.append(file.key)
        else:
            artifacts["/".join(parts[:3])].files.append(file)
    results = [file for file in backend.list_files("results") if not _is_partial(file)]
    for file, artifact_key in zip(results, _read_results(backend, results), strict=True):
        if artifact_key in artifacts:
            artifacts[artifact_key].files.append(file)
            artifacts[artifact_key].records.insert(0, file.key)
        else:
            leftovers.append(file)
    for file in backend.list_files("provenance"):
        artifact_key = f"artifacts/{file.key.partition('/')[2].removesuffix('.json')}"
        if artifact_key in artifacts:
            artifacts[artifact_key].files.append(file)
            artifacts[artifact_key].traces.append(file.key)
        else:
            leftovers.append(file)
    leftovers += [file for file in backend.list_files("results") if _is_partial(file)]
    pieces = [group.piece(key, ARTIFACT) for key, group in artifacts.items()]
    pieces += _list_folders(backend, "checkpoints", CHECKPOINT) + _list_folders(backend, "caches", CACHE)
    pieces += [Piece(file.key, LEFTOVER, file.key.split("/")[0], file.modified, file.size) for file in leftovers]
    return sorted(pieces, key=lambda piece: piece.key)


def remove_piece(store: ArtifactStore, piece: Piece) -> bool:
    """Remove a piece unless it was used since it was listed; return whether it is gone.

    What refers to it goes first: an interrupted removal leaves files that nothing refers to, never half an artifact.
    """
    backend = store.backend
    listed = (file for key in (*piece.records, piece.key) for file in backend.list_files(key))
    if any(file.modified > piece.used for file in listed):
        return False
    for key in (*piece.records, piece.key, *piece.traces):
        backend.remove(key)
    return True


def _list_folders(backend: StorageBackend, folder: str, role: str) -> list[Piece]:
    groups: dict[str, _Group] = defaultdict(_Group)
    for file in backend.list_files(folder):
        groups["/".join(file.key.split("/")[:3])].files.append(file)
    return [group.piece(key, role) for key, group in groups.items()]


def _is_partial(file: StoredFile) -> bool:
    """Whether it is the temporary file of a write that was killed, or that is under way."""
    return not file.key.endswith(".json") or file.key.rpartition("/")[2].startswith(".")


def _read_results(backend: StorageBackend, results: Sequence[StoredFile]) -> list[str]:
    """Return the key of the artifact that each result refers to, "" for one that cannot be read."""

    def read(file: StoredFile) -> str:
        try:
            return str(decode_record(file.key, backend.read(file.key) or b"")["address"])
        except (DamagedError, KeyError, TypeError) as error:
            logger.warning("%s/%s: refers to nothing: %r", backend.root, file.key, error)
            return ""

    with ThreadPoolExecutor(_READERS) as threads:
        return list(threads.map(read, results))
