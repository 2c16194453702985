"""What each artifact below a root was made from, as the records of the results say."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from hand1000.storage.artifacts import ArtifactStore
from hand1000.storage.digests import DamagedError
from hand1000.storage.inventory import ARTIFACT, Piece
from hand1000.storage.records import decode_record

SOURCES = "sources"
"""Field of a result: kinds and digests of the artifacts that the task read."""

_READERS = 16


@dataclass(frozen=True)
class Lineage:
    """The artifacts that each artifact was made from, by kind and digest.

    Attributes:
        sources: The sources of each artifact that any of its results names.
        unknown: Artifacts without a result that names its sources, such as those of an earlier hand1000.
    """

    sources: Mapping[str, frozenset[str]]
    unknown: frozenset[str]

    def add_derived(self, names: Iterable[str]) -> set[str]:
        """Return `names` and everything that was made from them, directly or through others."""
        made_from: dict[str, list[str]] = defaultdict(list)
        for name, sources in self.sources.items():
            for source in sources:
                made_from[source].append(name)
        reached, waiting = set(), list(names)
        while waiting:
            name = waiting.pop()
            if name not in reached:
                reached.add(name)
                waiting += made_from[name]
        return reached

    def sort_derived_first(self, names: Collection[str]) -> list[str]:
        """Return `names` in an order in which nothing comes after what it was made from."""
        count = {name: len(self.add_derived([name]) & set(names)) for name in names}
        return sorted(names, key=lambda name: (count[name], name))


def read_lineage(store: ArtifactStore, pieces: Sequence[Piece]) -> Lineage:
    """Read the results that refer to the artifacts among `pieces`."""
    artifacts = [piece for piece in pieces if piece.role == ARTIFACT]
    # The provenance too: an interrupted removal leaves it until last.
    keys = [
        (piece.name, key)
        for piece in artifacts
        for key in (*piece.records, *piece.traces)
        if key != f"{piece.key}.json"
    ]
    with ThreadPoolExecutor(_READERS) as threads:
        records = list(threads.map(lambda entry: _read_sources(store, entry[1]), keys))
    sources: dict[str, frozenset[str]] = {}
    for (name, _), names in zip(keys, records, strict=True):
        if names is not None:
            sources[name] = sources.get(name, frozenset()) | names
    return Lineage(sources, frozenset(piece.name for piece in artifacts) - set(sources))


def _read_sources(store: ArtifactStore, key: str) -> frozenset[str] | None:
    try:
        return frozenset(decode_record(key, store.backend.read(key) or b"")[SOURCES])
    except (DamagedError, KeyError, TypeError):
        return None
