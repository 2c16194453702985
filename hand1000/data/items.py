"""An image of a source before it is cropped, and the log of images that cannot be used."""

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
"""x, y, width and height as an annotator drew them: relative to the image, and possibly across its border."""


class SourceImage(msgspec.Struct, frozen=True):
    """One image of a source, of which there may be millions.

    Attributes:
        key: Name within its gesture, which is safe in a file name.
        file: Name within the source.
        bbox: Box of the hand that makes the gesture, relative to the upright image.
        hands: Number of labelled hands; 0 without labels.
        attributes: Other known facts, such as `handedness`.
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
    """An image that was skipped; `file` is `<gesture>/<name>`, which does not depend on the source's address."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    reason: str


@dataclass
class IssueLog:
    """Faults of the source at `address` that do not stop the work; `quiet` keeps them out of the program's log."""

    address: str
    quiet: bool = False
    warnings: list[str] = field(default_factory=list)
    unusable: list[SkippedImage] = field(default_factory=list)

    def warn(self, name: str, text: str) -> None:
        """Keep and log a warning about the file or folder `name`."""
        # Without the source's address: the dataset keeps the warning, and its content names the dataset.
        self.warnings.append(f"{name}: {text}")
        self._log(f"{name}: {text}")

    def skip(self, gesture: str, file: str, reason: str) -> None:
        """Keep and log an image that cannot be used."""
        self.unusable.append(SkippedImage(file=f"{gesture}/{file.rpartition('/')[2]}", reason=reason))
        self._log(f"{file}: skipped: {reason}")

    def _log(self, text: str) -> None:
        if not self.quiet:
            logger.warning("%s/%s", self.address, text)


def clip_box(box: Box) -> BBox | None:
    """Return the part of `box` inside the image, or None if it is empty; annotators drew some across the border."""
    x, y, width, height = box
    if x >= 0 and y >= 0 and x + width <= 1 and y + height <= 1:
        return box if width > 0 and height > 0 else None
    left, top = min(max(x, 0.0), 1.0), min(max(y, 0.0), 1.0)
    right, bottom = min(max(x + width, 0.0), 1.0), min(max(y + height, 0.0), 1.0)
    return (left, top, right - left, bottom - top) if right > left and bottom > top else None


_MAX_KEY_LENGTH = 80
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")


def safe_key(name: str) -> str:
    """Return `name` as part of a file name; a changed name gets a digest, so that different names stay different."""
    if len(name) <= _MAX_KEY_LENGTH and not _UNSAFE.search(name):
        return name
    return f"{_UNSAFE.sub('_', name)[:_MAX_KEY_LENGTH]}-{digest_bytes(name.encode())[:8]}"
