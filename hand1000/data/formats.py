"""The one list of image files: what Pillow opens, with pillow-heif where it is installed."""

from functools import cache

from PIL import Image

HEIF_SUFFIXES = frozenset({".heic", ".heics", ".heif", ".heifs", ".hif"})
"""Suffixes of images that need pillow-heif, which `pip install 'hand1000[heic]'` installs."""

# What Pillow identifies but does not decode by itself: EPS and WMF start other programs, the others are stubs, and XV's
# thumbnails and IPTC's records are no photos. An icon's size in Pillow is not that of the image inside.
_REFUSED = frozenset({"BUFR", "CUR", "EPS", "GRIB", "HDF5", "ICNS", "ICO", "IPTC", "MPEG", "WMF", "XVTHUMB"})


@cache
def readable_formats() -> tuple[str, ...]:
    """Return Pillow's names of the formats that are opened; a file of another one is not an image."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        pass
    else:
        register_heif_opener()
    Image.init()
    return tuple(name for name in Image.ID if name not in _REFUSED)


@cache
def image_suffixes() -> frozenset[str]:
    """Return the suffixes of image files, in lower case with their dots."""
    formats = set(readable_formats())
    return frozenset(suffix for suffix, name in Image.EXTENSION.items() if name in formats)


def is_image(name: str) -> bool:
    """Whether a file of this name is read as an image; hidden files, such as macOS's `._a.png`, are not."""
    stem, dot, suffix = name.rpartition("/")[2].rpartition(".")  # PurePosixPath is slow for a million names.
    return bool(stem) and not stem.startswith(".") and dot + suffix.lower() in image_suffixes()
