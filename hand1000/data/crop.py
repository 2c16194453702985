"""The square that is trained on: as much of a picture as a square holds, with the labelled hand in it."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image, ImageOps

from hand1000.core.errors import Hand1000Error, one_line

if TYPE_CHECKING:
    from hand1000.data.imageset import BBox

Crop = Literal["hand", "center"]

MAX_PIXELS = 80_000_000
"""A picture of more is refused before it is decoded: it would take more memory than a task is given."""


class UnreadableImage(Hand1000Error):
    """A picture that cannot be decoded; `reason` says why, without its path."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason


def load_square(
    path: Path,
    resolution: int,
    bbox: "BBox | None" = None,
    generator: np.random.Generator | None = None,
    crop: Crop = "hand",
) -> tuple[np.ndarray, "BBox | None"]:
    """The square crop of a picture file, upright and resized.

    Args:
        path: of a JPEG, PNG, WebP, BMP or TIFF.
        resolution: side of the result, in pixels.
        bbox: the labelled hand, relative to the upright picture. Where it is longer than the square's side, the
            square is centred on it.
        generator: draws where the square lies, evenly over all places that hold the box; without one it lies as near
            to the picture's centre as the box allows.
        crop: "hand" as said; "center" is the middle of the picture wherever the hand is, as the authors cut it.

    Returns:
        the crop, (resolution, resolution, 3) uint8 RGB, and the box relative to it, cut off at its border; no box if
        nothing of it is in the crop.

    Raises:
        UnreadableImage: the file is missing, empty, truncated, not a picture or too large.
    """
    picture = _decoded(path, 2 * resolution)
    width, height = picture.size
    side = min(width, height)
    x, y, w, h = bbox if bbox and crop == "hand" else (0.5, 0.5, 0.0, 0.0)
    drawn = generator if crop == "hand" else None
    left = _offset(width, side, x * width, w * width, drawn)
    top = _offset(height, side, y * height, h * height, drawn)
    square = picture.resize(
        (resolution, resolution), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side)
    )
    if bbox is None:
        return np.asarray(square), None
    x, y, w, h = bbox
    x0, x1 = np.clip([(x * width - left) / side, ((x + w) * width - left) / side], 0, 1)
    y0, y1 = np.clip([(y * height - top) / side, ((y + h) * height - top) / side], 0, 1)
    part = (float(x0), float(y0), float(x1 - x0), float(y1 - y0))
    return np.asarray(square), part if min(part[2:]) > 0 else None


def _offset(extent: int, side: int, start: float, length: float, generator: np.random.Generator | None) -> float:
    """Where the square begins along one axis, in pixels from 0 to extent - side."""
    last = extent - side
    lowest, highest = max(0.0, start + length - side), min(float(last), start)
    if lowest > highest:  # The box does not fit.
        return min(max(start + (length - side) / 2, 0.0), float(last))
    if generator is not None:
        return generator.uniform(lowest, highest)
    return min(max(last / 2, lowest), highest)


def _decoded(path: Path, least: int) -> Image.Image:
    """The upright RGB picture; a JPEG is decoded at a reduced scale whose sides are at least `least`."""
    try:
        if not path.stat().st_size:
            raise UnreadableImage(path, "empty file")
        with Image.open(path) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise UnreadableImage(path, f"{picture.width}x{picture.height} pixels, more than {MAX_PIXELS}")
            picture.draft(None, (least, least))
            return _rgb(ImageOps.exif_transpose(picture))
    except (UnreadableImage, MemoryError):
        raise
    except FileNotFoundError:
        raise UnreadableImage(path, "no such file") from None
    except Image.UnidentifiedImageError:
        raise UnreadableImage(path, "not a picture") from None
    except Exception as error:
        # Pillow's decoders raise whatever a malformed file makes them stumble over: OSError, SyntaxError, struct.error,
        # ValueError, IndexError and more. Each means the same here.
        raise UnreadableImage(path, one_line(error)) from error


def _rgb(picture: Image.Image) -> Image.Image:
    """Eight bits a channel, red, green and blue; what is transparent becomes white."""
    if picture.mode.startswith("I"):  # 16 bits of grey; Pillow's own conversion would cut all above 255 off.
        return Image.fromarray((np.asarray(picture).clip(0, 65535) // 257).astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        raise ValueError("floating-point pixels without a known range")
    if picture.has_transparency_data:
        coloured = picture.convert("RGBA")
        white = Image.new("RGBA", coloured.size, "white")
        return Image.alpha_composite(white, coloured).convert("RGB")
    return picture.convert("RGB")
