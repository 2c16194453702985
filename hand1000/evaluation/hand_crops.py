"""The part of a picture that FID-H and KID-H are measured on: one square for each hand."""

from collections.abc import Sequence

import numpy as np
import torch

from hand1000.hands.detector import Hand

MARGIN = 1.3
"""Side of the square relative to the longer side of the landmarks' box, which lies inside the hand's outline."""


def hand_crops(image: np.ndarray, hands: Sequence[Hand], size: int) -> np.ndarray:
    """A square around each hand.

    It is centred on the landmarks' box and moved into the picture where it reaches beyond, so that it shows nothing
    but the picture; it is never larger than that. Each hand is cut out on its own: a box around two hands would show
    mostly what is between them.

    Args:
        image: (S, S, 3) uint8 RGB.
        hands: K of them.
        size: side of the result, in pixels.

    Returns:
        (K, size, size, 3) uint8 RGB.
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
    """Pictures resized with an antialiased bicubic filter, in floating point as clean-fid does it.

    A filter that does not widen when it shrinks (as in the original FID) makes detail of what is only aliasing
    (Parmar et al., arXiv 2104.11222).

    Args:
        images: (N, H, W, 3) uint8.
        size: side of the result.

    Returns:
        (N, 3, size, size) float32, 0 to 255.
    """
    pixels = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float()
    if pixels.shape[2:] == (size, size):
        return pixels
    resized = torch.nn.functional.interpolate(pixels, (size, size), mode="bicubic", align_corners=False, antialias=True)
    return resized.clamp(0, 255)
