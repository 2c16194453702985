"""One picture of a source before it is cropped, and what is wrong with others."""

import logging
import re
from dataclasses import dataclass, field

import msgspec
from pydantic import BaseModel, ConfigDict, JsonValue

from hand1000.data.imageset import BBox
from hand1000.storage.digests import digest_bytes

logger = logging.getLogger(__name__)

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})

Box = tuple[float, float, float, float]
"""x, y, width and height as an annotator wrote them: relative to the picture, perhaps across its border."""


class SourceImage(msgspec.Struct, frozen=True):
    """One picture of a source; there may be millions of them.

    `key` names it within its gesture and is safe in a file name; `file` is its name in the source; `bbox` is the hand
    that makes the gesture, relative to the upright picture; `hands` is how many hands are labelled, 0 if none is;
    `attributes` are facts that are known of it, `handedness` among them.
    """

    key: str
    file: str
    gesture: str
    user_id: str
    bbox: BBox | None = None
    hands: int = 0
    caption: str | None = None
    attributes: dict[str, JsonValue] | None = None


class SkippedImage(BaseModel):
    """A picture that was passed over; `file` is `<gesture>/<name>`, equal wherever the source lies."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    reason: str


@dataclass
class IssueLog:
    """What is wrong with a source but does not stop the work; how much of it is borne is decided later.

    `quiet` keeps it out of the log, for who tells it otherwise.
    """

    address: str
    quiet: bool = False
    warnings: list[str] = field(default_factory=list)
    unusable: list[SkippedImage] = field(default_factory=list)

    def warn(self, where: str, text: str) -> None:
        """Keep a warning about the file or folder `where`, and log it."""
        # Without the address: the warning is kept in the data set, which is named by its content.
        self.warnings.append(f"{where}: {text}")
        self._log(f"{where}: {text}")

    def pass_over(self, gesture: str, file: str, reason: str) -> None:
        """Count a picture as unusable, and log it."""
        self.unusable.append(SkippedImage(file=f"{gesture}/{file.rpartition('/')[2]}", reason=reason))
        self._log(f"{file}: passed over: {reason}")

    def _log(self, text: str) -> None:
        if not self.quiet:
            logger.warning("%s/%s", self.address, text)


def clip_box(box: Box) -> BBox | None:
    """The part of a box that lies within the picture, where there is one; annotators drew some across the border."""
    x, y, width, height = box
    if x >= 0 and y >= 0 and x + width <= 1 and y + height <= 1:
        return box if width > 0 and height > 0 else None
    left, top = min(max(x, 0.0), 1.0), min(max(y, 0.0), 1.0)
    right, bottom = min(max(x + width, 0.0), 1.0), min(max(y + height, 0.0), 1.0)
    return (left, top, right - left, bottom - top) if right > left and bottom > top else None


_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")


def safe_key(name: str) -> str:
    """`name` as part of a file name; where that changes it, with a digest so that no two names become one."""
    if len(name) <= 80 and not _UNSAFE.search(name):
        return name
    return f"{_UNSAFE.sub('_', name)[:80]}-{digest_bytes(name.encode())[:8]}"
