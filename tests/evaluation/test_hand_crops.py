"""Hand crops and the antialiased resizer."""

import numpy as np
import pytest
from PIL import Image

from hand1000.evaluation.hand_crops import crop_hands, resize
from hand1000.hands.detector import Hand


def _hand(x: float, y: float, width: float, height: float) -> Hand:
    points = np.full((21, 3), (x, y, 0.0), np.float32)
    points[1, :2] = x + width, y + height
    return Hand(points, 0.9, True)


def test_each_hand_has_a_crop_within_the_image() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(100), np.arange(100)[:, None]
    crops = crop_hands(image, [_hand(0.4, 0.5, 0.2, 0.1), _hand(0.9, 0.95, 0.2, 0.1), _hand(-0.5, -0.5, 2, 2)], 26)
    # A box of 20 x 10 pixels around (50, 55) gives a square of 26 pixels around it, here at its own size.
    assert np.array_equal(crops[0], image[42:68, 37:63])
    assert np.array_equal(crops[1], image[74:, 74:])
    assert crops.shape == (3, 26, 26, 3) and crops[2, -1, -1, 0] > 90 and crops[2, 0, 0, 0] < 10
    assert crop_hands(image, [], 26).shape == (0, 26, 26, 3)


@pytest.mark.parametrize("size", [24, 64, 150])
def test_images_are_resized_as_by_pillow_in_floating_point(size: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    channels = [
        np.asarray(Image.fromarray(image[..., index].astype(np.float32)).resize((size, size), Image.Resampling.BICUBIC))
        for index in range(3)
    ]
    resized = resize(image[None], size)[0].numpy()
    assert resized.shape == (3, size, size)
    assert np.abs(resized - np.stack(channels).clip(0, 255)).max() < 0.1
