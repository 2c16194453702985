"""Decoding of image files within bounds: of pixels, and of memory over all threads of the process.

A file of a thousand bytes may claim any number of pixels, so both bounds are checked before a pixel is decoded.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from hand1000.core.errors import Hand1000Error, one_line

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 80_000_000
"""A larger image is refused; the setting `data.max_pixels` changes it for a preparation."""

MAX_IMAGE_BYTES = 1 << 30
"""An image whose decoding needs more memory is refused, whatever its number of pixels."""

MEMORY_VARIABLE = "HAND1000_IMAGE_MEMORY_MB"
_MEMORY_MB = 2000

_DECODER_BYTES = {"WEBP": 16, "AVIF": 8, "HEIF": 8, "JPEG2000": 16}
"""Bytes per pixel that a format's decoder takes with its result; measured with Pillow 12 and rounded up."""

_PIXEL_BYTES = 4
"""Bytes of a pixel as Pillow keeps it, also of RGB."""

_PROGRESSIVE_BYTES = 6


# What Pillow identifies but does not decode by itself: EPS and WMF start other programs, the others are stubs, and XV's
# thumbnails and IPTC's records are no photos. An icon's size in Pillow is not that of the image inside.
_REFUSED = frozenset({"BUFR", "CUR", "EPS", "GRIB", "HDF5", "ICNS", "ICO", "IPTC", "MPEG", "WMF", "XVTHUMB"})


@cache
def readable_formats() -> tuple[str, ...]:
    """Return Pillow's names of the formats that are opened; a file of another one is not an image."""
    from PIL import Image

    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        pass
    else:
        register_heif_opener()
    Image.init()
    return tuple(name for name in Image.ID if name not in _REFUSED)


class TooLargeError(Hand1000Error):
    """An image with more pixels than are decoded; the message is without the file's name."""


class MemoryBudget:
    """Memory that threads reserve before they decode an image, and wait for; `num_bytes` in all."""

    def __init__(self, num_bytes: int) -> None:
        self.num_bytes = num_bytes
        self._used = 0
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, num_bytes: int) -> Iterator[None]:
        """Hold `num_bytes` inside the context; what is more than the whole budget is held alone."""
        with self._changed:
            self._changed.wait_for(lambda: not self._used or self._used + num_bytes <= self.num_bytes)
            self._used += num_bytes
        try:
            yield
        finally:
            with self._changed:
                self._used -= num_bytes
                self._changed.notify_all()


@cache
def image_memory() -> MemoryBudget:
    """Return the budget of this process: `HAND1000_IMAGE_MEMORY_MB`, 2000 MB by default.

    Raises:
        Hand1000Error: The variable is not a positive number.
    """
    text = os.environ.get(MEMORY_VARIABLE, str(_MEMORY_MB))
    if not text.isascii() or not text.isdigit() or not int(text):
        raise Hand1000Error(f"{MEMORY_VARIABLE}={text[:40]!r}: not a number of megabytes; choose 100 or more")
    return MemoryBudget(int(text) * 1_000_000)


@contextmanager
def open_image(
    file: Path | BinaryIO,
    *,
    max_pixels: int = MAX_PIXELS,
    min_side: int = 0,
) -> "Iterator[Image.Image]":
    """Open and decode an image, and reserve the memory for that and for its conversion to RGB inside the context.

    Args:
        file: An image file.
        max_pixels: Largest number of pixels.
        min_side: A JPEG is decoded at a reduced scale with sides of at least so many pixels; 0 keeps it whole.

    Raises:
        TooLargeError: The image has more pixels, or needs more memory.
        Exception: Whatever Pillow's decoders raise on a malformed file.
    """
    from PIL import Image

    with Image.open(file, formats=readable_formats()) as image:
        num_pixels = image.width * image.height
        if num_pixels > max_pixels:
            raise TooLargeError(f"{image.width}x{image.height} pixels, more than {max_pixels}")
        if min_side:
            image.draft(None, (min_side, min_side))
        needed = _decoding_bytes(image, num_pixels)
        if needed > MAX_IMAGE_BYTES:
            raise TooLargeError(
                f"{image.width}x{image.height} pixels of {image.format} need {needed / 1e9:.2f} GB to decode, more "
                f"than {MAX_IMAGE_BYTES / 1e9:.2f} GB"
            )
        with image_memory().reserve(needed):
            image.load()
            if image.width * image.height > max_pixels:  # An icon's own header may name another size.
                raise TooLargeError(f"{image.width}x{image.height} pixels, more than {max_pixels}")
            yield image


def read_rgb(path: Path) -> "Image.Image":
    """Decode an image of an image set as RGB.

    Raises:
        Hand1000Error: The file is missing, too large or not an image.
    """
    try:
        with open_image(path) as image:
            return image.convert("RGB")
    except MemoryError:
        raise
    except Hand1000Error as error:
        raise Hand1000Error(f"{path}: {error}; make it smaller") from error
    except Exception as error:
        # Pillow's decoders raise OSError, SyntaxError, struct.error, ValueError, IndexError and more.
        reason = one_line(str(error).replace(str(path), "file"))[:200]
        raise Hand1000Error(f"{path}: not a readable image: {reason}; restore it") from error


def _decoding_bytes(image: "Image.Image", num_pixels: int) -> int:
    """Estimate the memory of decoding an opened image of `num_pixels` and converting it, also turned, to RGB."""
    if image.format in ("JPEG", "MPO"):
        # Of a progressive JPEG all coefficients are in memory, whatever the scale at which it is decoded.
        coefficients = _PROGRESSIVE_BYTES * num_pixels if image.info.get("progressive") else 0
        return coefficients + 3 * _PIXEL_BYTES * image.width * image.height
    # The image turned upright, and the strips of one that is converted, as large as it in the end.
    converted = _PIXEL_BYTES * (1 + (image.mode != "RGB" or "transparency" in image.info))
    return num_pixels * (_DECODER_BYTES.get(image.format or "", _PIXEL_BYTES) + converted)
