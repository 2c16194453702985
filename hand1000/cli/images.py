"""Images as files whose format is that of the suffix."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hand1000.core.errors import Hand1000Error

if TYPE_CHECKING:
    from PIL import Image

FORMATS: dict[str, dict[str, Any]] = {
    ".png": {"format": "PNG"},
    ".jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".jpeg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".webp": {"format": "WEBP", "lossless": True},
}
"""Pillow's options of each suffix; JPEG alone loses anything."""


def check_image_path(path: Path) -> None:
    """Check that an image can be written under the name `path`.

    Raises:
        Hand1000Error: The suffix names none of `FORMATS`, or `path` is a folder.
    """
    if path.suffix.lower() not in FORMATS:
        raise Hand1000Error(f"{path}: the suffix names no image format; choose one of {', '.join(FORMATS)}")
    if path.is_dir():
        raise Hand1000Error(f"{path}: is a folder; name a file")


def save_image(image: "Image.Image", path: Path) -> None:
    """Write an image atomically in the format that the suffix of `path` names; create its folder if necessary.

    Raises:
        Hand1000Error: See `check_image_path`, or the folder is not writable.
    """
    import io

    from hand1000.storage.files import write_bytes

    check_image_path(path)
    buffer = io.BytesIO()
    image.save(buffer, **FORMATS[path.suffix.lower()])
    write_bytes(path, buffer.getvalue())
