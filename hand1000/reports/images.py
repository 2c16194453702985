"""Images in a page: `data:` URIs, and thumbnails that keep the page small."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hand1000.storage.images import read_rgb

MAX_SIDE = 512
"""Side in pixels of the largest embedded image."""
_MAX_PNG_SIDE = 128
"""Side up to which images are embedded as lossless PNG; larger ones become JPEG, to limit the size of the page."""
_JPEG_QUALITY = 85

_THUMBNAIL_SIDES = (256, 192, 128, 96, 64)
_SAMPLED_IMAGES = 12


class Thumbnails(NamedTuple):
    """Side in pixels of the thumbnails of a page, the number of images that have one, and whether they lose detail."""

    side: int
    num_images: int
    reduced: bool = False


def image_uri(path: Path, max_side: int = MAX_SIDE) -> str:
    """The image as a `data:` URI, at most `max_side` pixels large.

    Raises:
        Hand1000Error: The image is missing or unreadable.
    """
    kind, data = _encode(path, max_side)
    return data_uri(kind, data)


def data_uri(kind: str, data: bytes) -> str:
    """A `data:` URI of an image; `kind` is the subtype, such as `png`."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def fit_thumbnails(paths: Sequence[Path], max_bytes: int) -> Thumbnails:
    """The largest thumbnails of all images that fit into `max_bytes` of a page, by the mean size of a few of them.

    If not even the smallest fit, fewer images have one.
    """
    if not paths:
        return Thumbnails(_THUMBNAIL_SIDES[0], 0)
    sample = paths[:: -(-len(paths) // _SAMPLED_IMAGES)]
    mean_bytes = 0.0
    for side in _THUMBNAIL_SIDES:
        mean_bytes = sum(len(_encode(path, side)[1]) for path in sample) / len(sample) * 4 / 3
        if mean_bytes * len(paths) <= max_bytes:
            return Thumbnails(side, len(paths), _read_side(paths[0]) > max(side, _MAX_PNG_SIDE))
    return Thumbnails(_THUMBNAIL_SIDES[-1], int(max_bytes / mean_bytes), reduced=True)


def _read_side(path: Path) -> int:
    from PIL import Image

    with Image.open(path) as image:
        return max(image.size)


def _encode(path: Path, max_side: int) -> tuple[str, bytes]:

    buffer = io.BytesIO()
    image = read_rgb(path)
    if max(image.size) <= _MAX_PNG_SIDE:
        image.save(buffer, "PNG", optimize=True)
        return "png", buffer.getvalue()
    image.thumbnail((max_side, max_side))
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return "jpeg", buffer.getvalue()
