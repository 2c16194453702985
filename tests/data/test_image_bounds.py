"""Bounds of decoding: an image is judged by its header, before a pixel of it takes memory."""

import io
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from hand1000.config.data_settings import DataSettings
from hand1000.config.settings import load_settings
from hand1000.core.errors import Hand1000Error
from hand1000.data.crop import UnreadableImageError, load_square
from hand1000.data.formats import readable_formats
from hand1000.storage import images
from hand1000.storage.images import MAX_PIXELS, MEMORY_VARIABLE, MemoryBudget, TooLargeError, image_memory, read_rgb

SIDE = 1100
"""Side in pixels of images that are above a lowered limit of a million pixels."""


def save(path: Path, color: str = "red", **options: object) -> Path:
    readable_formats()  # Registers pillow-heif.
    image = Image.new("RGBA" if path.suffix in (".png", ".webp") else "RGB", (SIDE, SIDE), color)
    image.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "tif", "avif", "heic", "jp2", "bmp"])
def test_an_image_above_the_limit_is_refused_undecoded(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / f"x.{suffix}")
    assert load_square(path, 8, max_pixels=SIDE**2)[0].shape == (8, 8, 3)

    def fail(_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(type(Image.open(path)), "load", fail)
    with pytest.raises(UnreadableImageError, match=f"{SIDE}x{SIDE} pixels, more than {SIDE**2 - 1}"):
        load_square(path, 8, max_pixels=SIDE**2 - 1)


def test_an_image_whose_decoder_needs_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_IMAGE_BYTES", 10 * SIDE**2)
    for name in ("x.jpg", "x.bmp"):
        assert load_square(save(tmp_path / name), 8)[0].shape == (8, 8, 3)
    for name in ("x.webp", "x.png", "x.jp2"):
        with pytest.raises(UnreadableImageError, match="need .* GB to decode"):
            load_square(save(tmp_path / name), 8)
    with pytest.raises(UnreadableImageError, match="of JPEG need"):
        load_square(save(tmp_path / "progressive.jpg", progressive=True), SIDE)


def test_the_setting_is_the_limit_of_a_preparation() -> None:
    assert load_settings("default").data.max_pixels == MAX_PIXELS
    with pytest.raises(ValidationError, match="max_pixels"):
        DataSettings.model_validate(load_settings("default").data.model_dump() | {"max_pixels": 10})


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_every_accepted_limit_is_one_that_pillow_keeps(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"max_pixels") as refused:
        DataSettings.model_validate(load_settings("default").data.model_dump() | {"max_pixels": 10**9})
    limit = refused.value.errors()[0]["ctx"]["le"]
    width = 10_000
    Image.new("1", (width, limit // width)).save(tmp_path / "x.jpg", quality=1)
    assert load_square(tmp_path / "x.jpg", 8, max_pixels=limit)[0].shape == (8, 8, 3)


def test_an_image_of_a_set_above_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "x.png")
    assert read_rgb(path).size == (SIDE, SIDE)
    monkeypatch.setattr(images, "MAX_IMAGE_BYTES", SIDE**2)
    with pytest.raises(Hand1000Error, match=r"x\.png: .* GB to decode.*make it smaller"):
        read_rgb(path)
    monkeypatch.undo()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(Hand1000Error, match=r"x\.png: not a readable image"):
        read_rgb(path)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "CMYK", "L", "1", "I;16"])
def test_strips_change_no_pixel(tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(1)
    colors = Image.fromarray(generator.integers(0, 256, (64, 50, 4), np.uint8), "RGBA")
    if mode == "I;16":
        image = Image.fromarray(generator.integers(0, 2**16, (64, 50), np.uint16))
    else:
        image = colors.quantize(16) if mode == "P" else colors.convert("RGB" if mode == "CMYK" else mode).convert(mode)
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    image.save(path)
    whole, _ = load_square(path, 50)
    monkeypatch.setattr("hand1000.data.crop._STRIP_PIXELS", 7 * 50)
    assert np.array_equal(load_square(path, 50)[0], whole)


def test_threads_wait_for_memory_and_use_all_of_it() -> None:
    budget, present, most = MemoryBudget(100), 0, 0
    lock = threading.Lock()

    def work(size: int) -> None:
        nonlocal present, most
        with budget.reserve(size):
            with lock:
                present += size
                most = max(most, present)
            time.sleep(0.002)
            with lock:
                present -= size

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [40, 30, 30, 60, 10, 100, 500, 1] * 4))
    assert most == 500 and present == 0
    with ThreadPoolExecutor(8) as pool:
        most = 0
        list(pool.map(work, [40, 30, 30, 60, 10, 100] * 8))
    assert 50 < most <= 100


def test_threads_decode_within_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    present: list[int] = []
    most = 0

    class Watched(MemoryBudget):
        def reserve(self, num_bytes: int):  # noqa: ANN202
            return watch(super().reserve(num_bytes))

    def watch(reservation):  # noqa: ANN001, ANN202
        from contextlib import contextmanager

        @contextmanager
        def inner():  # noqa: ANN202
            nonlocal most
            with reservation:
                present.append(1)
                most = max(most, len(present))
                yield
                present.pop()

        return inner()

    budget = Watched(20 * SIDE**2)
    monkeypatch.setattr(images, "image_memory", lambda: budget)
    paths = [save(tmp_path / f"{index}.png") for index in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda path: load_square(path, 8), paths))
    assert most == 1


def test_a_failing_decoder_gives_its_memory_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = MemoryBudget(20 * SIDE**2)
    monkeypatch.setattr(images, "image_memory", lambda: budget)
    path = save(tmp_path / "x.png")
    path.write_bytes(path.read_bytes()[:-40])
    for _ in range(3):
        with pytest.raises(UnreadableImageError):
            load_square(path, 8)
    assert load_square(save(tmp_path / "y.png"), 8)[0].shape == (8, 8, 3)


@pytest.mark.parametrize("text", ["", "0", "-1", "2GB", "٣", "1e3"])
def test_a_wrong_budget_is_named(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MEMORY_VARIABLE, text)
    image_memory.cache_clear()
    try:
        with pytest.raises(Hand1000Error, match=MEMORY_VARIABLE):
            image_memory()
    finally:
        image_memory.cache_clear()


@pytest.mark.parametrize("make", [lambda file: Image.new("RGB", (16, 16)).save(file, "ICO", sizes=[(16, 16)])])
def test_an_icon_is_no_image(tmp_path: Path, make: Callable[[io.BytesIO], None]) -> None:
    """Its header names another size than the image inside has."""
    buffer = io.BytesIO()
    make(buffer)
    (tmp_path / "x.png").write_bytes(buffer.getvalue())
    with pytest.raises(UnreadableImageError, match="not an image"):
        load_square(tmp_path / "x.png", 8)
    assert issubclass(TooLargeError, Hand1000Error)


@pytest.mark.parametrize("kind", ["ICO", "ICNS", "EPS"])
def test_an_image_set_has_no_icons_or_programs(tmp_path: Path, kind: str) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "x.png", kind)
    with pytest.raises(Hand1000Error, match=r"x\.png: not a readable image: .*; restore it"):
        read_rgb(tmp_path / "x.png")
