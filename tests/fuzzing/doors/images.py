"""Doors of image files and of Parquet: damaged bytes of every format, and headers that claim more than there is."""

import io
import random
import struct
import zlib
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from hand1000.core.errors import Hand1000Error
from hand1000.data.crop import load_square, upright_size
from hand1000.data.formats import readable_formats
from hand1000.data.items import IssueLog
from hand1000.data.sources.archives import ParquetArchive
from hand1000.storage.images import read_rgb
from tests.fuzzing.harness import Door
from tests.fuzzing.mutations import damage_bytes

FORMATS = (
    "png", "jpeg", "webp", "gif", "bmp", "tiff", "avif", "heif", "jpeg2000", "ppm", "tga", "dds", "qoi", "pcx", "sgi",
    "im",
)  # fmt: skip
MODES = ("RGB", "RGBA", "LA", "L", "P", "1", "CMYK", "I;16")
MAX_PIXELS = 4_000
"""The lowered limit of the door; headers claim a little more."""


@cache
def _encode(form: str, mode: str, seed: int) -> bytes:
    """A small image file, or b"" if the format cannot hold the mode."""
    readable_formats()
    noise = np.random.default_rng(seed).integers(0, 256, (30, 40, 4), np.uint8)
    image = Image.fromarray(noise, "RGBA").convert("RGB" if mode in ("CMYK", "I;16") else mode)
    if mode == "CMYK":
        image = image.convert("CMYK")
    elif mode == "I;16":
        image = Image.fromarray(noise[..., 0].astype(np.uint16) * 200)
    exif = Image.Exif()
    exif[0x0112] = 1 + seed % 8
    buffer = io.BytesIO()
    options = {"exif": exif} if form in ("png", "jpeg", "webp", "tiff") else {}
    try:
        image.save(buffer, form, **options)
    except (OSError, ValueError, KeyError, SystemError):
        return b""
    return buffer.getvalue()


def _claim(rng: random.Random) -> bytes:
    """A PNG whose header claims a size just above or below the lowered limit, with the pixels of a smaller one."""
    width, height = rng.choice(((80, 51), (4001, 1), (1, 4001), (40, 100), (64, 62)))
    depth, color = rng.choice(((8, 0), (8, 2), (8, 3), (8, 4), (8, 6), (16, 0), (16, 6), (1, 0)))
    data = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, rng.randrange(2))
    content = zlib.compress(bytes(rng.randrange(3000)))
    for name, chunk in ((b"IHDR", header), (b"PLTE", bytes(9)), (b"tRNS", b"\0\1"), (b"IDAT", content), (b"IEND", b"")):
        data += struct.pack(">I", len(chunk)) + name + chunk + struct.pack(">I", zlib.crc32(name + chunk))
    return data


def _make_image(rng: random.Random) -> bytes:
    if rng.random() < 0.15:
        return _claim(rng)
    data = b""
    while not data:
        data = _encode(rng.choice(FORMATS), rng.choice(MODES), rng.randrange(8))
    return damage_bytes(rng, data) if rng.random() < 0.9 else data


def _read_image(data: bytes, folder: Path) -> None:
    path = folder / "x.png"
    path.write_bytes(data)
    refusals = []
    for read in (
        lambda: load_square(path, 16, (0.2, 0.2, 0.5, 0.5), max_pixels=MAX_PIXELS),
        lambda: upright_size(path),
        lambda: read_rgb(path),
    ):
        try:
            read()
        except Hand1000Error as error:
            refusals.append(error)
    if refusals:
        raise refusals[0]


@cache
def _parquet(seed: int) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"image": {"bytes": _encode("png", "RGB", index), "path": f"{index}.png"}, "text": "a hand" * (index % 3)}
        for index in range(6)
    ]
    buffer = io.BytesIO()
    compression, version = ("NONE", "SNAPPY", "ZSTD")[seed % 3], ("1.0", "2.0")[seed % 2]
    pq.write_table(
        pa.Table.from_pylist(rows), buffer, row_group_size=4, compression=compression, data_page_version=version
    )
    return buffer.getvalue()


def _read_parquet(data: bytes, folder: Path) -> None:
    path = folder / "x.parquet"
    path.write_bytes(data)
    archive = ParquetArchive(path, "x.parquet", "x.parquet", IssueLog("x", quiet=True))
    for name in archive.names():
        archive.read(name)
    for _ in archive.rows():
        pass


DOORS = [
    Door("image file", _make_image, _read_image),
    Door("Parquet file", lambda rng: damage_bytes(rng, _parquet(rng.randrange(6))), _read_parquet, weight=0.5),
]
