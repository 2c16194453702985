"""The features of image sets that were evaluated before, in the caches of an artifact root."""

import base64
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from hand1000.core.errors import Hand1000Error
from hand1000.hands.landmarks import NUM_LANDMARKS
from hand1000.storage.artifacts import ArtifactStore
from hand1000.storage.cache import KeyValueCache
from hand1000.storage.digests import digest_file, digest_json

logger = logging.getLogger(__name__)

FEATURES_VERSION = 1
"""Version of what is extracted from an image: a change of detector, crops, colors or extractor raises it."""

_KIND = "image_features"
_PER_IMAGE: dict[str, tuple[int, ...]] = {"features": (-1,), "palm_score": (), "hand_presence": (), "colors": (3, 3)}
_PER_HAND: dict[str, tuple[int, ...]] = {
    "crop_features": (-1,),
    "landmarks": (NUM_LANDMARKS, 3),
    "handedness_score": (),
    "is_right": (),
}
"""Shapes of the fields of `ImageFeatures` for one image and for one hand; -1 is the number of features."""


class FeatureCache:
    """The features of one image set in one order, an entry for each image.

    All entries are recalled or none: the rounding of a convolution depends on the images beside it in its batch. The
    name of an entry is the sha256 of the image, by which `hand1000 data forget` finds and removes it.

    Args:
        store: Artifact root.
        provenance: How the features are extracted, see `ImageFeatures.provenance`.
        paths: The image files, in the order of their extraction.
        keys: The sha256 of the file of each image that names its entry; None takes those of `paths`.
    """

    def __init__(
        self,
        store: ArtifactStore,
        provenance: tuple[JsonValue, ...],
        paths: Sequence[Path],
        keys: Sequence[str] | None = None,
    ) -> None:
        digests = [digest_file(path) for path in paths]
        names = Counter(keys or digests)
        # A name stands for one row, so that nothing is kept of a set with an image twice.
        self._keys = list(keys or digests) if max(names.values(), default=1) == 1 else []
        self._cache: KeyValueCache = store.key_value_cache(
            _KIND, digest_json([FEATURES_VERSION, list(provenance), digests])
        )

    def recall(self) -> dict[str, np.ndarray] | None:
        """Return the array fields of `ImageFeatures`, without the similarity to prompts; None if one is missing."""
        entries = self._cache.read() if self._keys else {}
        if not self._keys or not entries.keys() >= set(self._keys):
            return None
        try:
            return _join([entries[key] for key in self._keys])
        except (KeyError, TypeError, ValueError) as error:
            logger.warning("features of %d images: not recalled, since they are damaged: %s", len(self._keys), error)
            return None

    def keep(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Store what `recall` returns; an artifact root that refuses it is named in a warning."""
        if not self._keys:
            return
        try:
            self._cache.add(dict(zip(self._keys, _split(arrays), strict=True)))
        except Hand1000Error as error:
            logger.warning("the features of the images are not kept: %s", error)


def _split(arrays: Mapping[str, np.ndarray]) -> list[dict[str, JsonValue]]:
    """Return the rows of each image and of its hands as text."""
    entries: list[dict[str, JsonValue]] = []
    for index in range(len(arrays["features"])):
        hands = arrays["image_index"] == index
        rows = {name: arrays[name][index] for name in _PER_IMAGE} | {name: arrays[name][hands] for name in _PER_HAND}
        entries.append({name: base64.b64encode(values.tobytes()).decode() for name, values in rows.items()})
    return entries


def _join(entries: Sequence[JsonValue]) -> dict[str, np.ndarray]:
    """Return the arrays of which `_split` made `entries`."""
    rows: dict[str, list[np.ndarray]] = {name: [] for name in (*_PER_IMAGE, *_PER_HAND)}
    counts = []
    for entry in entries:
        if not isinstance(entry, Mapping):
            raise TypeError(f"{str(entry):.40} is no entry")
        count = len(_decode(entry["handedness_score"], "handedness_score"))
        counts.append(count)
        size = len(_decode(entry["features"], "features"))
        for number, shapes in ((1, _PER_IMAGE), (count, _PER_HAND)):
            for name, shape in shapes.items():
                shape = tuple(size if extent == -1 else extent for extent in shape)
                rows[name].append(_decode(entry[name], name).reshape(number, *shape))
    arrays = {name: np.concatenate(values) for name, values in rows.items()}
    return arrays | {"image_index": np.repeat(np.arange(len(entries), dtype=np.int64), counts)}


def _decode(text: JsonValue, name: str) -> np.ndarray:
    if not isinstance(text, str):
        raise TypeError(f"{name} is {str(text):.40}")
    return np.frombuffer(base64.b64decode(text, validate=True), bool if name == "is_right" else np.float32)
