"""The one list of image files: what Pillow opens, with pillow-heif where it is installed."""

from functools import cache

from PIL import Image

from hand1000.storage.images import readable_formats

HEIF_SUFFIXES = frozenset({".heic", ".heics", ".heif", ".heifs", ".hif"})
"""Suffixes of images that need pillow-heif, which `pip install 'hand1000[heic]'` installs."""


@cache
def image_suffixes() -> frozenset[str]:
    """Return the suffixes of image files, in lower case with their dots."""
    formats = set(readable_formats())
    return frozenset(suffix for suffix, name in Image.EXTENSION.items() if name in formats)


def is_image(name: str) -> bool:
    """Whether a file of this name is read as an image; hidden files, such as macOS's `._a.png`, are not."""
    stem, dot, suffix = name.rpartition("/")[2].rpartition(".")  # PurePosixPath is slow for a million names.
    return bool(stem) and not stem.startswith(".") and dot + suffix.lower() in image_suffixes()
