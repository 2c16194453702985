"""Color faithfulness of rendered-style images: do wall, skin and sleeve have the colors that the prompt names?

CLIP is not trained on such small images. The meaning of a color word is therefore learned from the real images: the
median color of a place (wall, skin or sleeve) over all images whose prompt uses that word. A generated image is
faithful if its color is nearest to the color of its own prompt's word.
"""

import re
from collections.abc import Sequence

import numpy as np

from hand1000.data.imageset import ImageRecord
from hand1000.hands.detector import Hand

PLACES = ("wall", "skin", "sleeve")

_PALM_LANDMARKS = (0, 1, 5, 9, 13, 17)
_CORNER_FRACTION = 0.12
"""Side of the two squares in the upper corners that show the wall, relative to the image."""
_SLEEVE_OFFSETS = np.linspace(0.3, 1.5, 25)
"""Distances below the wrist, in palm lengths, at which the sleeve is looked for."""
_SLEEVE_PIXELS = 4
"""The farthest visible points count as sleeve."""
_MIN_IMAGES_PER_WORD = 3


def measure_colors(image: np.ndarray, hands: Sequence[Hand]) -> np.ndarray:
    """Measure the colors of `PLACES` in an image (S, S, 3) uint8; skin and sleeve are those of the first hand.

    Returns:
        (3, 3) float32, 0 to 255; NaN for a place that is not visible.
    """
    size = len(image)
    corner = max(1, round(_CORNER_FRACTION * size))
    # If one corner is covered, the median is still a color of the image; a mean would be a mixture.
    wall = np.concatenate([image[:corner, :corner].reshape(-1, 3), image[:corner, -corner:].reshape(-1, 3)])
    colors = np.full((3, 3), np.nan, np.float32)
    colors[0] = np.median(wall, axis=0)
    if hands:
        points = hands[0].landmarks[:, :2]
        palm = 0.5 * (points[list(_PALM_LANDMARKS)] + points[list(_PALM_LANDMARKS)].mean(axis=0))
        down = points[0] - points[[5, 9, 13, 17]].mean(axis=0)
        for place, samples in ((1, palm), (2, points[0] + _SLEEVE_OFFSETS[:, None] * down)):
            pixels = np.floor(samples * size).astype(int)
            pixels = pixels[np.all((pixels >= 0) & (pixels < size), axis=1)]
            if place == 2:
                pixels = pixels[-_SLEEVE_PIXELS:]
            if len(pixels):
                colors[place] = np.median(image[pixels[:, 1], pixels[:, 0]], axis=0)
    return colors


def find_color_words(record: ImageRecord) -> tuple[str, ...]:
    """The record's attribute for each of `PLACES` if its text contains that word, else an empty string."""
    attributes, text_words = record.attributes or {}, set(re.findall(r"[a-z]+", record.text.lower()))
    words = (str(attributes.get(place, "")) for place in PLACES)
    return tuple(word if word in text_words else "" for word in words)


def color_faithfulness(
    colors: np.ndarray,
    words: Sequence[Sequence[str]],
    real_colors: np.ndarray,
    real_words: Sequence[Sequence[str]],
) -> dict[str, float]:
    """The share of images that have the color their prompt names, for each of `PLACES` that any prompt names.

    A place that is not visible counts as wrong. The value of the real images is the upper bound of this metric. Colors
    are those of `measure_colors`, (N, 3, 3), and words those of `find_color_words`.
    """
    checked = check_colors(colors, words, real_colors, real_words)
    return {place: sum(images.values()) / len(images) for place, images in checked.items()}


def check_colors(
    colors: np.ndarray,
    words: Sequence[Sequence[str]],
    real_colors: np.ndarray,
    real_words: Sequence[Sequence[str]],
) -> dict[str, dict[int, bool]]:
    """Whether each image has the color that its prompt names, by place and by the index of the image.

    Only images whose prompt names a known color of that place are there. The arguments are those of
    `color_faithfulness`.
    """
    checked = {}
    for place, name in enumerate(PLACES):
        centers = {}
        for word in sorted({image_words[place] for image_words in real_words} - {""}):
            word_colors = real_colors[[image_words[place] == word for image_words in real_words], place]
            word_colors = word_colors[np.isfinite(word_colors).all(axis=1)]
            if len(word_colors) >= _MIN_IMAGES_PER_WORD:
                centers[word] = np.median(word_colors, axis=0)
        named = [index for index, image_words in enumerate(words) if image_words[place] in centers]
        if len(centers) < 2 or not named:
            continue
        vocabulary, center_colors = list(centers), np.stack(list(centers.values()))
        checked[name] = {
            index: bool(np.isfinite(colors[index, place]).all())
            and vocabulary[int(np.argmin(np.linalg.norm(center_colors - colors[index, place], axis=1)))]
            == words[index][place]
            for index in named
        }
    return checked
