"""The square crop: its position, its box, and the image formats that it reads."""

import io

import numpy as np
import pytest
from PIL import Image

from hand1000.core.rng import numpy_generator
from hand1000.data.crop import UnreadableImageError, load_square
from hand1000.data.png import save_png

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def mark_box(size: tuple[int, int], box: tuple[float, float, float, float]) -> Image.Image:
    """A blue image with a red rectangle, `box` relative to it."""
    image = Image.new("RGB", size, BLUE)
    x, y, w, h = box[0] * size[0], box[1] * size[1], box[2] * size[0], box[3] * size[1]
    image.paste(RED, (round(x), round(y), round(x + w), round(y + h)))
    return image


def red_box(square: np.ndarray) -> tuple[float, float, float, float]:
    """The box of the red pixels, relative to the square."""
    ys, xs = np.nonzero((square[..., 0] > 128) & (square[..., 2] < 128))
    side = len(square)
    return (xs.min() / side, ys.min() / side, (np.ptp(xs) + 1) / side, (np.ptp(ys) + 1) / side)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("size", [(400, 200), (200, 400), (300, 300), (1601, 1201), (30, 20)])
@pytest.mark.parametrize("box", [(0.0, 0.0, 0.2, 0.2), (0.8, 0.7, 0.2, 0.3), (0.4, 0.5, 0.1, 0.2)])
@pytest.mark.parametrize("seed", [None, 1, 2])
def test_the_crop_contains_the_box_and_shifts_it(tmp_path, suffix, size, box, seed):
    mark_box(size, box).save(tmp_path / f"x.{suffix}", **({"quality": 95, "subsampling": 0} if suffix == "jpg" else {}))
    generator = None if seed is None else numpy_generator(seed)
    square, moved = load_square(tmp_path / f"x.{suffix}", 100, box, generator)
    assert square.shape == (100, 100, 3) and square.dtype == np.uint8
    assert moved == pytest.approx(red_box(square), abs=0.04)
    side = min(size)
    assert moved[2:] == pytest.approx((box[2] * size[0] / side, box[3] * size[1] / side), abs=0.01), "cut off"


def test_the_crop_is_as_central_as_the_box_allows(tmp_path):
    Image.new("RGB", (400, 200)).save(tmp_path / "x.png")
    assert load_square(tmp_path / "x.png", 50, (0.45, 0.4, 0.1, 0.2))[1] == pytest.approx((0.4, 0.4, 0.2, 0.2))
    assert load_square(tmp_path / "x.png", 50, (0.9, 0.4, 0.1, 0.2))[1] == pytest.approx((0.8, 0.4, 0.2, 0.2))
    assert load_square(tmp_path / "x.png", 50, (0.05, 0.4, 0.8, 0.2))[1] == pytest.approx((0.0, 0.4, 1.0, 0.2))


def test_the_generator_decides_the_jitter(tmp_path):
    Image.new("RGB", (400, 200)).save(tmp_path / "x.png")
    boxes = [load_square(tmp_path / "x.png", 50, (0.45, 0, 0.1, 1), numpy_generator(seed))[1] for seed in (1, 1, 2)]
    assert boxes[0] == boxes[1] != boxes[2]


def test_a_rotated_image_is_made_upright_first(tmp_path):
    upright = mark_box((300, 200), (0.8, 0.0, 0.2, 0.3))
    exif = Image.Exif()
    exif[0x0112] = 6  # Shown turned clockwise by a quarter.
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "x.jpg", exif=exif, quality=95, subsampling=0)
    square, moved = load_square(tmp_path / "x.jpg", 100, (0.8, 0.0, 0.2, 0.3))
    assert moved == pytest.approx(red_box(square), abs=0.04)


def test_a_fine_pattern_becomes_grey_and_not_moire(tmp_path):
    stripes = np.zeros((1024, 1024, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "x.png")
    square, _ = load_square(tmp_path / "x.png", 100)
    assert abs(square[10:-10, 10:-10].astype(int) - 127).max() <= 3


@pytest.mark.parametrize("side", [300, 500, 510, 1000])
def test_a_jpeg_decoded_at_half_its_size_looks_the_same(tmp_path, side):
    """libjpeg halves in the frequency domain, so nothing folds over; 1 is a 255th of the range."""
    generator = np.random.default_rng(1)
    blocks = [generator.integers(0, 256, (side // size + 1,) * 2 + (3,)).astype(np.uint8) for size in (8, 30, 200)]
    layers = [Image.fromarray(block).resize((side, side), Image.Resampling.BICUBIC) for block in blocks]
    Image.blend(Image.blend(layers[0], layers[1], 0.5), layers[2], 0.5).save(tmp_path / "x.jpg", quality=92)
    square, _ = load_square(tmp_path / "x.jpg", 250)
    full = Image.open(tmp_path / "x.jpg").convert("RGB").resize((250, 250), Image.Resampling.LANCZOS)
    assert np.abs(square.astype(float) - np.asarray(full)).mean() < 1


@pytest.mark.parametrize("size", [(1, 1), (40, 50), (3, 257)])
def test_a_png_is_written_without_loss(tmp_path, size):
    pixels = np.random.default_rng(1).integers(0, 256, (*size, 3)).astype(np.uint8)
    save_png(Image.fromarray(pixels), tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as image:
        image.verify()
    with Image.open(tmp_path / "x.png") as image:
        assert image.mode == "RGB" and np.array_equal(np.asarray(image), pixels)
    save_png(Image.fromarray(pixels[:, ::-1]), tmp_path / "x.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "x.png")), pixels[:, ::-1])


def test_a_photograph_is_stored_compressed(tmp_path):
    ramp = np.add.outer(np.arange(256), np.arange(256)) // 2
    noise = np.random.default_rng(1).integers(-2, 3, (256, 256))
    pixels = np.clip(ramp + noise, 0, 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    save_png(Image.fromarray(pixels), tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size < 0.5 * pixels.size


def sixteen_bits() -> Image.Image:
    return Image.fromarray(np.full((20, 20), 128 * 257, np.uint16))


def clear_red() -> Image.Image:
    """Red that is wholly transparent."""
    return Image.new("RGBA", (20, 20), (255, 0, 0, 0))


@pytest.mark.parametrize(
    ("image", "suffix", "color"),
    [
        (Image.new("L", (20, 20), 100), "png", (100, 100, 100)),
        (Image.new("1", (20, 20), 1), "png", WHITE),
        (Image.new("RGB", (20, 20), GREEN).convert("P"), "png", GREEN),
        (Image.new("RGB", (20, 20), GREEN).convert("CMYK"), "jpg", GREEN),
        (Image.new("RGB", (20, 20), GREEN).convert("CMYK"), "tif", GREEN),
        (sixteen_bits(), "png", (128, 128, 128)),
        (sixteen_bits(), "tif", (128, 128, 128)),
        (clear_red(), "png", WHITE),
        (clear_red(), "webp", WHITE),
        (clear_red().convert("LA"), "png", WHITE),
        (Image.new("RGBA", (20, 20), (0, 0, 255, 51)), "png", (204, 204, 255)),
    ],
)
def test_every_pixel_format_becomes_rgb(tmp_path, image, suffix, color):
    image.save(tmp_path / f"x.{suffix}", **({"quality": 100} if suffix == "jpg" else {}))
    square, _ = load_square(tmp_path / f"x.{suffix}", 10)
    assert np.abs(square.astype(int) - color).max() <= 2


def test_a_transparent_palette_becomes_white(tmp_path):
    image = Image.new("P", (20, 20), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.save(tmp_path / "x.png", transparency=0)
    assert (load_square(tmp_path / "x.png", 10)[0] == 255).all()


def jpeg_bytes(size: tuple[int, int] = (64, 64)) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise(size, 50).convert("RGB").save(buffer, "jpeg")
    return buffer.getvalue()


def huge_png() -> bytes:
    """A small file of too many pixels, though fewer than Pillow itself minds."""
    buffer = io.BytesIO()
    Image.new("1", (9_000, 9_000)).save(buffer, "png")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"no image", "not an image"),
        (jpeg_bytes()[:700], "truncated"),
        (huge_png(), "9000x9000 pixels, more than"),
        (None, "no such file"),
    ],
)
def test_the_error_says_why_an_image_is_unreadable(tmp_path, data, reason):
    if data is not None:
        (tmp_path / "x.jpg").write_bytes(data)
    with pytest.raises(UnreadableImageError, match=reason) as caught:
        load_square(tmp_path / "x.jpg", 10)
    assert "\n" not in str(caught.value) and str(tmp_path / "x.jpg") in str(caught.value)


def test_no_corrupt_file_raises_another_error(tmp_path):
    generator = numpy_generator(3)
    buffer = io.BytesIO()
    Image.effect_noise((40, 40), 50).convert("RGBA").save(buffer, "png")
    for original in (jpeg_bytes(), buffer.getvalue()):
        for _ in range(60):
            data = bytearray(original[: generator.integers(1, len(original) + 1)])
            for place in generator.integers(0, len(data), 3):
                data[place] = generator.integers(256)
            (tmp_path / "x").write_bytes(data)
            try:
                square, _ = load_square(tmp_path / "x", 8)
            except UnreadableImageError:
                continue
            assert square.shape == (8, 8, 3)
