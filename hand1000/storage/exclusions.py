"""The exclusion list of an artifact root: the people and images that `hand1000 data forget` removed.

`prepare_data` leaves them out of every later dataset. The list holds salted hashes, never a name. The hashes do not
protect a name from a reader of the root who can guess it: whoever has the ids of a source can test each of them.
"""

import hmac
import json
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from hand1000.core.errors import Hand1000Error
from hand1000.storage.backend import StorageBackend
from hand1000.storage.digests import Sha256, canonical_json, digest_bytes, digest_json

FOLDER = "exclusions"
"""Folder below the root with one file for each call that added something, named by the digest of its content."""

_SALT_BYTES = 32


class _Part(BaseModel, extra="forbid", frozen=True):
    salt: Annotated[str, Field(pattern=f"^[0-9a-f]{{{2 * _SALT_BYTES}}}$")]
    people: tuple[Sha256, ...] = ()
    images: tuple[Sha256, ...] = ()


@dataclass(frozen=True)
class Exclusions:
    """The people and images that no dataset may hold; false if there are none."""

    parts: tuple[_Part, ...] = ()
    _people: dict[str, bool] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __bool__(self) -> bool:
        """Whether anything is excluded."""
        return any(part.people or part.images for part in self.parts)

    def cache_key_fields(self) -> str:
        """Return the digest of the list."""
        return digest_json([part.model_dump(mode="json") for part in self.parts])

    def holds_person(self, user_id: str) -> bool:
        """Return whether a person is on the list."""
        if user_id not in self._people:
            self._people[user_id] = any(_hash(part.salt, "person", user_id) in part.people for part in self.parts)
        return self._people[user_id]

    def holds_image(self, gesture: str, key: str) -> bool:
        """Return whether an image is on the list, by its key alone or by its gesture and key."""
        return any(
            _hash(part.salt, "image", name) in part.images
            for part in self.parts
            if part.images
            for name in (key, f"{gesture}/{key}")
        )

    def extended(self, people: Iterable[str], images: Iterable[str]) -> "Exclusions":
        """Return the list with further people (`user_id`) and images (`KEY` or `GESTURE/KEY`); known ones add nothing.

        All parts have the salt of the first one, so that a long list costs no more than a short one.
        """
        salt = self.parts[0].salt if self.parts else secrets.token_hex(_SALT_BYTES)
        new_people = {_hash(salt, "person", name) for name in people if not self.holds_person(name)}
        new_images = {_hash(salt, "image", name) for name in images}
        new_images -= {known for part in self.parts for known in part.images}
        if not (new_people or new_images):
            return self
        part = _Part(salt=salt, people=tuple(sorted(new_people)), images=tuple(sorted(new_images)))
        return Exclusions(tuple(sorted({*self.parts, part}, key=canonical_json)))


def read_exclusions(backend: StorageBackend) -> Exclusions:
    """Return the exclusion list of a root.

    Raises:
        Hand1000Error: A file of the list is damaged, so that nobody knows whom it excludes.
    """
    parts = []
    for name in sorted(backend.file_sizes(FOLDER)):
        if not name.endswith(".json") or name.startswith("."):
            continue  # The temporary file of a write that was killed, which added nothing.
        key = f"{FOLDER}/{name}"
        data = backend.read(key)
        try:
            if data is None or f"{digest_bytes(data)}.json" != name:
                raise ValueError("its content is not what was written")
            parts.append(_Part.model_validate(json.loads(data)))
        except (ValueError, ValidationError) as error:
            raise Hand1000Error(
                f"{backend.root}/{key}: damaged, so it is unknown whom it excludes; restore it from a copy, or remove "
                "it and run `hand1000 data forget` again for everybody since its date"
            ) from error
    return Exclusions(tuple(sorted(parts, key=canonical_json)))


def add_exclusions(backend: StorageBackend, people: Sequence[str], images: Sequence[str]) -> Exclusions:
    """Add people and images to the list of a root, and return all of it; two processes may do so at the same time."""
    present = read_exclusions(backend)
    extended = present.extended(people, images)
    for part in set(extended.parts) - set(present.parts):
        data = canonical_json(part).encode()
        backend.write(f"{FOLDER}/{digest_bytes(data)}.json", data)
    return extended


def _hash(salt: str, kind: str, name: str) -> str:
    return hmac.digest(bytes.fromhex(salt), f"{kind}\0{name}".encode("utf-8", "surrogatepass"), "sha256").hex()
