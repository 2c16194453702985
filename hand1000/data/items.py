"""An image of a source before it is cropped, and the log of what a source says that cannot be used."""

import logging
import re
from bisect import insort
from collections import Counter
from dataclasses import dataclass, field

import msgspec
from pydantic import BaseModel, ConfigDict, JsonValue

from hand1000.core.text import MAX_MESSAGE, shorten
from hand1000.data.imageset import BBox
from hand1000.data.problem_kinds import REMEDIES
from hand1000.storage.digests import digest_bytes

logger = logging.getLogger(__name__)

_MAX_NAME = 500
MAX_LISTED = 3
"""Number of names that are kept of each kind of problem."""


class SourceImage(msgspec.Struct, frozen=True):
    """One image of a source, of which there may be millions.

    Attributes:
        key: Name within its gesture, which is safe in a file name.
        file: Name within the source.
        bbox: Box of the hand that makes the gesture, relative to the upright image.
        hands: Number of labelled hands; 0 without labels.
        caption: The only caption, or the first of several.
        captions: All captions of an image that has several; a preparation draws one of them by its seed.
        captioned_by: Who wrote the caption: the file that has it, or the captioner that the file names.
        attributes: Other known facts, such as `handedness`.
        provenance: Where image and facts come from, "" if the layout says it, as HaGRID's does.
    """

    key: str
    file: str
    gesture: str
    user_id: str
    bbox: BBox | None = None
    hands: int = 0
    caption: str | None = None
    attributes: dict[str, JsonValue] | None = None
    captions: tuple[str, ...] = ()
    captioned_by: str = ""
    provenance: str = ""


class SkippedImage(BaseModel):
    """An image that was skipped; `file` is `<gesture>/<name>`, which does not depend on the source's address."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    reason: str


class Problem(BaseModel):
    """What of one kind could not be used: how often, the names of the first, and what a person can do."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    count: int
    names: tuple[str, ...]
    remedy: str

    def __str__(self) -> str:
        """One line for a person."""
        return f"{self.kind}: {self.describe()}"

    def describe(self) -> str:
        """Return the count, the first names and the remedy."""
        more = f" and {self.count - len(self.names)} more" if self.count > len(self.names) else ""
        return f"{self.count} ({'; '.join(self.names)}{more}); {self.remedy}"


@dataclass
class IssueLog:
    """Faults of the source at `address` that do not stop the work; `quiet` keeps them out of the program's log.

    Attributes:
        warnings: Sentences about the source.
        unusable: Images that are skipped.
        num_images: Number of images and annotations of the requested gestures that were read, with the skipped ones.
    """

    address: str
    quiet: bool = False
    warnings: list[str] = field(default_factory=list)
    unusable: list[SkippedImage] = field(default_factory=list)
    num_images: int = 0
    _counts: Counter[str] = field(default_factory=Counter)
    _names: dict[str, list[str]] = field(default_factory=dict)
    _counted: set[tuple[str, str]] = field(default_factory=set)

    def warn(self, name: str, text: str) -> None:
        """Keep and log a warning about the file or folder `name`."""
        # Without the source's address: the dataset keeps the warning, and its content names the dataset.
        self.warnings.append(shorten(f"{name}: {text}", MAX_MESSAGE))
        self._log(f"{name}: {text}")

    def skip(self, gesture: str, file: str, reason: str) -> None:
        """Keep and log an image that cannot be used."""
        name = shorten(f"{gesture}/{file.rpartition('/')[2]}", _MAX_NAME)
        self.unusable.append(SkippedImage(file=name, reason=shorten(reason, MAX_MESSAGE)))
        self._log(f"{file}: skipped: {reason}")

    def count(self, kind: str, name: str, number: int = 1) -> None:
        """Count what is not used, by its kind, a key of `problem_kinds.REMEDIES`; the same name counts once.

        The first names of a kind in alphabetical order are kept.
        """
        name = shorten(name, _MAX_NAME)
        if (kind, name) in self._counted:  # A file above several gestures is read for each of them.
            return
        self._counted.add((kind, name))
        self._counts[kind] += number
        names = self._names.setdefault(kind, [])
        if len(names) < MAX_LISTED:
            self._log(f"{name}: {kind}")
        insort(names, name)  # The names do not depend on the order of a listing.
        del names[MAX_LISTED:]

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What was counted, in the order of `REMEDIES`."""
        return tuple(
            Problem(kind=kind, count=self._counts[kind], names=tuple(self._names[kind]), remedy=remedy)
            for kind, remedy in REMEDIES.items()
            if kind in self._counts
        )

    def _log(self, text: str) -> None:
        if not self.quiet:
            logger.warning("%s/%s", self.address, shorten(text, MAX_MESSAGE))


_MAX_KEY_LENGTH = 80
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")


def safe_key(name: str) -> str:
    """Return `name` as part of a file name; a changed name gets a digest, so that different names stay different."""
    if len(name) <= _MAX_KEY_LENGTH and not _UNSAFE.search(name):
        return name
    return f"{_UNSAFE.sub('_', name)[:_MAX_KEY_LENGTH]}-{digest_bytes(name.encode())[:8]}"
