"""Square hand crops, the images of FID-H and KID-H, and the antialiased resizer of all feature extractors."""

from collections.abc import Sequence

import numpy as np
import torch

from hand1000.hands.detector import Hand

MARGIN = 1.3
"""Side of a crop relative to the longer side of the landmarks' box, which is inside the outline of the hand."""


def crop_hands(image: np.ndarray, hands: Sequence[Hand], size: int) -> np.ndarray:
    """Crop a square around each hand.

    The square is centered on the landmarks' box and shifted into the image where it would exceed it, so that no crop
    needs padding. Each hand has its own crop: a common box would mostly show the space between two hands.

    Args:
        image: RGB image, (S, S, 3) uint8.
        hands: K hands detected in the image.
        size: Side of the crops (K, size, size, 3) uint8, in pixels.
    """
    crops = np.empty((len(hands), size, size, 3), np.uint8)
    extent = image.shape[0]
    for index, hand in enumerate(hands):
        x, y, width, height = (value * extent for value in hand.box)
        side = int(np.clip(round(MARGIN * max(width, height)), 2, extent))
        left = int(np.clip(round(x + width / 2 - side / 2), 0, extent - side))
        top = int(np.clip(round(y + height / 2 - side / 2), 0, extent - side))
        square = resize(image[None, top : top + side, left : left + side], size)[0]
        crops[index] = square.round().permute(1, 2, 0).to(torch.uint8).numpy()
    return crops


def resize(images: np.ndarray, size: int) -> torch.Tensor:
    """Resize images with an antialiased bicubic filter in floating point, as clean-fid does.

    The filter of the original FID does not widen when it shrinks an image, which causes aliasing that distorts the
    metric (Parmar et al., arXiv 2104.11222).

    Args:
        images: Images, (N, H, W, 3) uint8.
        size: Side of the result (N, 3, size, size) float32, 0 to 255, in pixels.
    """
    pixels = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float()
    if pixels.shape[2:] == (size, size):
        return pixels
    resized = torch.nn.functional.interpolate(pixels, (size, size), mode="bicubic", align_corners=False, antialias=True)
    return resized.clamp(0, 255)
