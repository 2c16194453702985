"""Small values by key that runs add to and never lose: what a captioner wrote of an image, say."""

import json
import logging
from collections.abc import Mapping
from uuid import uuid4

from pydantic import JsonValue

from hand1000.storage.backend import DamagedError, StorageBackend
from hand1000.storage.digests import canonical_json

logger = logging.getLogger(__name__)


class KeyValueCache:
    """A folder of files, one a writer, each whole or absent: writers at work at once never overwrite each other.

    A value is decided by its key, so it does not matter which of two equal entries is read.

    Args:
        place: that it lies in.
        key: of its folder.
    """

    def __init__(self, place: StorageBackend, key: str) -> None:
        self._place, self._key = place, key
        self._own: dict[str, JsonValue] = {}
        self._file = f"{key}/{uuid4().hex}.json"

    def read(self) -> dict[str, JsonValue]:
        """All entries, of all writers; a file that is damaged is passed over with a warning."""
        entries: dict[str, JsonValue] = {}
        # A writer that was killed may leave a temporary file, which has another suffix.
        for name in sorted(name for name in self._place.sizes(self._key) if name.endswith(".json")):
            try:
                data = self._place.read(f"{self._key}/{name}")
                entries |= json.loads(data or b"{}")
            except (DamagedError, ValueError, TypeError) as error:
                logger.warning("%s/%s/%s: passed over: %s", self._place.root, self._key, name, error)
        return entries

    def add(self, entries: Mapping[str, JsonValue]) -> None:
        """Keep `entries`; they last once this returns."""
        self._own |= entries
        self._place.write(self._file, canonical_json(self._own).encode())
