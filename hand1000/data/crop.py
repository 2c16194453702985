"""The square crop that models train on, which contains the labelled hand."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
from PIL import ExifTags, Image

from hand1000.core.errors import Hand1000Error, one_line
from hand1000.data.formats import HEIF_SUFFIXES, image_suffixes
from hand1000.storage.images import MAX_PIXELS, TooLargeError, open_image, readable_formats

if TYPE_CHECKING:
    from hand1000.data.imageset import BBox

T = TypeVar("T")

CropMode = Literal["hand", "center"]

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_LFS_POINTER = b"version https://git-lfs"
_MAX_PNG_BYTES = 100_000_000
_STRIP_PIXELS = 1 << 20
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


FaultCallback = Callable[[str], None]
"""Called with a fault beside the pixels of an image, which is used nevertheless."""


def ignore_fault(_: str) -> None:
    """Do nothing."""


class UnreadableImageError(Hand1000Error):
    """An image that cannot be decoded; `reason` is the message without the path."""

    def __init__(self, path: Path, reason: str) -> None:
        """Make the error of the file `path`."""
        super().__init__(f"{path}: {reason}")
        self.reason = reason


def load_square(
    path: Path,
    resolution: int,
    bbox: "BBox | None" = None,
    generator: np.random.Generator | None = None,
    crop: CropMode = "hand",
    on_fault: FaultCallback = ignore_fault,
    max_pixels: int = MAX_PIXELS,
) -> tuple[np.ndarray, "BBox | None"]:
    """Load the square crop of an image file, upright and resized.

    Args:
        path: Image file of any format in `readable_formats`; of several frames the first is read.
        resolution: Side of the result in pixels.
        bbox: Box of the labelled hand, relative to the upright image. Where it is longer than the square's side, the
            square is centered on it.
        generator: Random generator that samples the position of the square uniformly among all that contain the box;
            None takes the position nearest to the image's center.
        crop: "hand" as described; "center" takes the middle of the image whatever its labels, as the authors do.
        on_fault: Called with each fault beside the pixels, such as a malformed EXIF block.
        max_pixels: Largest number of pixels of the whole image.

    Returns:
        The crop, (resolution, resolution, 3) uint8 RGB, and the box relative to it, clipped at its border; no box if
        none of it is in the crop.

    Raises:
        UnreadableImageError: The file is missing, empty, truncated, too large or not an image.
    """

    def cut(image: Image.Image) -> tuple[np.ndarray, "BBox | None"]:
        """Return the resized square of an upright image, and the box's part in it."""
        width, height = image.size
        side = min(width, height)
        x, y, w, h = bbox if bbox and crop == "hand" else (0.5, 0.5, 0.0, 0.0)
        sampler = generator if crop == "hand" else None
        left = _square_offset(width, side, x * width, w * width, sampler)
        top = _square_offset(height, side, y * height, h * height, sampler)
        box = (left, top, left + side, top + side)
        square = np.asarray(image.resize((resolution, resolution), Image.Resampling.LANCZOS, box=box))
        if bbox is None:
            return square, None
        x, y, w, h = bbox
        x0, x1 = np.clip([(x * width - left) / side, ((x + w) * width - left) / side], 0, 1)
        y0, y1 = np.clip([(y * height - top) / side, ((y + h) * height - top) / side], 0, 1)
        part = (float(x0), float(y0), float(x1 - x0), float(y1 - y0))
        return square, part if min(part[2:]) > 0 else None

    def decode(file: Path | io.BytesIO) -> tuple[np.ndarray, "BBox | None"]:
        # The memory stays reserved until the square is cut.
        with open_image(file, max_pixels=max_pixels, min_side=resolution) as image:
            if (block := image.info.get("exif")) and not _is_exif_intact(block):
                on_fault("malformed EXIF block")
            method = _UPRIGHT.get(_orientation(image))
            rgb = _convert_to_rgb(image)
            return cut(rgb if method is None else rgb.transpose(method))

    return _decode_image(path, decode, on_fault)


def _square_offset(extent: int, side: int, start: float, length: float, generator: np.random.Generator | None) -> float:
    """Return where the square begins along one axis, in pixels from 0 to extent - side."""
    last = extent - side
    lowest, highest = max(0.0, start + length - side), min(float(last), start)
    if lowest > highest:  # The box does not fit.
        return min(max(start + (length - side) / 2, 0.0), float(last))
    if generator is not None:
        return generator.uniform(lowest, highest)
    return min(max(last / 2, lowest), highest)


def upright_size(path: Path) -> tuple[int, int]:
    """Return width and height of the upright image without decoding its pixels.

    Raises:
        UnreadableImageError: The file is not an image.
    """
    try:
        with Image.open(path, formats=readable_formats()) as image:  # Opened, not decoded.
            width, height = image.size
            return (height, width) if _orientation(image) in (5, 6, 7, 8) else (width, height)
    except MemoryError:
        raise
    except Exception as error:
        raise UnreadableImageError(path, "not an image") from error


def _decode_image(path: Path, decode: Callable[[Path | io.BytesIO], T], on_fault: FaultCallback) -> T:
    """Call `decode` with the image file, or with what is left of a PNG without what is beside its pixels."""
    try:
        if not path.stat().st_size:
            raise UnreadableImageError(path, "empty file")
        try:
            return decode(path)
        except (OSError, SyntaxError, ValueError):
            if (pixels := _without_ancillary_chunks(path)) is None:
                raise
            decoded = decode(pixels)
            on_fault("malformed text, time or EXIF chunk")
            return decoded
    except (UnreadableImageError, MemoryError):
        raise
    except TooLargeError as error:
        raise UnreadableImageError(path, str(error)) from None
    except FileNotFoundError:
        raise UnreadableImageError(path, "no such file") from None
    except Image.UnidentifiedImageError:
        heif = path.suffix.lower() in HEIF_SUFFIXES - image_suffixes()
        with open(path, "rb") as file:
            is_pointer = file.read(len(_LFS_POINTER)) == _LFS_POINTER
        reason = "a Git LFS pointer instead of an image; run git lfs pull" if is_pointer else "not an image"
        raise UnreadableImageError(path, "it needs pillow-heif" if heif else reason) from None
    except Exception as error:
        # On a malformed file, Pillow's decoders raise OSError, SyntaxError, struct.error, ValueError, IndexError and
        # more, which all mean the same here.
        raise UnreadableImageError(path, one_line(error)) from error


def _orientation(image: Image.Image) -> int:
    """Return the orientation in the image's EXIF block; 1, upright, if the block is malformed.

    `ImageOps.exif_transpose` would refuse the image then, though its pixels are intact.
    """
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except MemoryError:
        raise
    except Exception:  # As many kinds as the decoders raise.
        return 1


def _is_exif_intact(block: bytes) -> bool:
    """Whether an EXIF block begins with a complete list of tags; Pillow reads a part of one that is cut short."""
    block = block.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4], "")
    try:
        (start,) = struct.unpack_from(f"{order}I", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, start)
        struct.unpack_from(f"{12 * count}x", block, start + 2)
    except struct.error:
        return False
    return bool(order)


def _without_ancillary_chunks(path: Path) -> io.BytesIO | None:
    """Return a PNG file without what is beside its pixels, but with an intact EXIF chunk; None for another file.

    Pillow refuses the whole file if the checksum of such a chunk is wrong or its text is too long.
    """
    with open(path, "rb") as file:
        if file.read(len(_PNG_SIGNATURE)) != _PNG_SIGNATURE or path.stat().st_size > _MAX_PNG_BYTES:
            return None
        kept = [_PNG_SIGNATURE]
        while len(head := file.read(8)) == 8:
            length, name = struct.unpack(">I4s", head)
            chunk = file.read(length + 4)
            is_exif = name == b"eXIf" and chunk[length:] == struct.pack(">I", zlib.crc32(name + chunk[:length]))
            if name[:1].isupper() or name == b"tRNS" or is_exif:
                kept.append(head + chunk)
    return io.BytesIO(b"".join(kept))


def _convert_to_rgb(image: Image.Image) -> Image.Image:
    """Convert to eight-bit RGB, by strips, which bounds the memory; transparent pixels become white."""
    if image.mode == "F":
        raise ValueError("floating-point pixels without a known range")
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    rgb = Image.new("RGB", image.size)
    rows = max(1, _STRIP_PIXELS // max(1, image.width))
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        rgb.paste(_convert_strip(strip), (0, top))
    return rgb


def _convert_strip(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # Pillow's own conversion of 16-bit grey would clip all values above 255.
        return Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        colors = image.convert("RGBA")
        white = Image.new("RGBA", colors.size, "white")
        return Image.alpha_composite(white, colors).convert("RGB")
    return image.convert("RGB")
