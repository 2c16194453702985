"""PNG files of photographs and of drawn images."""

import zlib
from pathlib import Path
from typing import BinaryIO

from PIL import Image

OPTIONS = {"compress_level": 1, "compress_type": zlib.Z_RLE}
"""Matches of runs only: about as small as Pillow's default for photographs, in a sixth of the time, and also exact."""


def save_png(image: Image.Image, file: Path | BinaryIO) -> None:
    """Write an image as PNG, without loss."""
    image.save(file, "PNG", **OPTIONS)
