"""Which files are images, and that a fault beside the pixels is not a fault of the pixels."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from hand1000.core.errors import Hand1000Error
from hand1000.data.crop import UnreadableImageError, load_square, upright_size
from hand1000.data.formats import image_suffixes, is_image, readable_formats
from tests.support.hagrid_source import select

GREEN = (0, 200, 0)


FORMATS = ("jpg", "jpeg", "jfif", "jpe", "png", "gif", "bmp", "webp", "avif", "tif", "tiff", "jp2", "heic", "HEIF")


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_that_pillow_opens_is_an_image(tmp_path, suffix):
    for index in range(3):
        readable_formats()  # Registers pillow-heif.
        Image.new("RGB", (16, 16), (0, 200, 80 * index)).save(tmp_path / f"{index}.{suffix}")
    assert len(select(tmp_path, 2, 1).train) == 2
    square, _ = load_square(tmp_path / f"0.{suffix}", 16)
    assert np.abs(square.astype(int) - GREEN).max() <= 8


def test_formats_that_start_other_programs_are_never_opened(tmp_path):
    assert not {".eps", ".ps", ".wmf", ".pdf", ".mpg"} & image_suffixes()
    assert not is_image("._a.png") and not is_image("four/._a.png") and not is_image("a.svg") and is_image("a.PNG")
    Image.new("RGB", (8, 8)).save(tmp_path / "x.eps")
    (tmp_path / "x.eps").rename(tmp_path / "x.png")
    with pytest.raises(UnreadableImageError, match="not an image"):
        load_square(tmp_path / "x.png", 8)


def with_chunk(data: bytes, name: bytes, content: bytes, checksum: int | None = None) -> bytes:
    """A PNG file with one more chunk after its header."""
    checksum = zlib.crc32(name + content) if checksum is None else checksum
    chunk = struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)
    return data[:33] + chunk + data[33:]


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg"])
def test_a_malformed_exif_block_does_not_matter(tmp_path, suffix):
    Image.new("RGB", (16, 16), GREEN).save(tmp_path / f"x.{suffix}", exif=b"Exif\0\0not a TIFF file")
    square, _ = load_square(tmp_path / f"x.{suffix}", 16)
    assert np.abs(square.astype(int) - GREEN).max() <= 8 and upright_size(tmp_path / f"x.{suffix}") == (16, 16)


@pytest.mark.parametrize(
    ("name", "content", "checksum"),
    [
        (b"eXIf", b"MM\0*\0\0\0\x08", 1),
        (b"tEXt", b"key\0text", 1),
        (b"zTXt", b"key\0\0" + zlib.compress(bytes(PngImagePlugin.MAX_TEXT_CHUNK + 1)), None),
    ],
)
def test_a_fault_in_another_chunk_does_not_matter(tmp_path, name, content, checksum):
    path = tmp_path / "x.png"
    Image.new("RGB", (16, 16), GREEN).save(path)
    path.write_bytes(with_chunk(path.read_bytes(), name, content, checksum))
    faults = []
    assert (load_square(path, 16, on_fault=faults.append)[0] == GREEN).all()
    assert faults == ["malformed text, time or EXIF chunk"]


def test_a_fault_in_a_text_does_not_cost_the_orientation(tmp_path):
    path, exif = tmp_path / "x.png", Image.Exif()
    exif[0x0112] = 6
    image = Image.new("RGB", (16, 16), GREEN)
    image.paste((200, 0, 0), (0, 0, 16, 8))
    image.save(path, exif=exif)
    upright, _ = load_square(path, 16)
    path.write_bytes(with_chunk(path.read_bytes(), b"tEXt", b"key\0text", 1))
    assert (load_square(path, 16)[0] == upright).all() and (upright[:, 0] != upright[:, -1]).any()


def test_a_fault_of_the_pixels_still_matters(tmp_path):
    path = tmp_path / "x.png"
    Image.effect_noise((16, 16), 50).save(path)
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 6] ^= 0xFF
    path.write_bytes(with_chunk(bytes(data), b"tEXt", b"key\0text", 1))
    with pytest.raises(UnreadableImageError):
        load_square(path, 16)


def test_a_folder_of_files_without_an_image_is_an_error(tmp_path):
    (tmp_path / "._a.png").write_text("x")
    (tmp_path / "a.svg").write_text("x")
    with pytest.raises(Hand1000Error, match="no images of 'four'; not read: file not understood: 1"):
        select(tmp_path, 1, 1)
