"""Whether a rendered-style picture has the colours that its prompt names: of the wall, the skin and the sleeve.

CLIP knows no such small pictures. What the words mean is learned from the real ones: the mean colour of each, seen at
the same places. A generated picture is faithful where its colour is nearest to that of its prompt's own word.
"""

import re
from collections.abc import Sequence

import numpy as np

from hand1000.data.imageset import ImageRecord
from hand1000.hands.detector import Hand

PLACES = ("wall", "skin", "sleeve")

_PALM = (0, 1, 5, 9, 13, 17)
_CORNER = 0.12
"""Of the picture's side: the squares in its upper corners, where the wall is."""
_BELOW = np.linspace(0.3, 1.5, 25)
"""Where the sleeve is: at the last places, so far below the wrist in lengths of the palm, that the picture shows."""
_LAST = 4
_FEWEST = 3
"""Real pictures by which a word's colour is known."""


def measure_colors(image: np.ndarray, hands: Sequence[Hand]) -> np.ndarray:
    """The colours of `PLACES`, (3, 3) float32, 0 to 255; NaN where a place is not seen.

    Args:
        image: (S, S, 3) uint8 RGB.
        hands: that were found in it; skin and sleeve are the first one's.
    """
    size = len(image)
    corner = max(1, round(_CORNER * size))
    # Of two corners that differ (one may be covered) the median is between; mean would be too.
    wall = np.concatenate([image[:corner, :corner].reshape(-1, 3), image[:corner, -corner:].reshape(-1, 3)])
    found = np.full((3, 3), np.nan, np.float32)
    found[0] = np.median(wall, axis=0)
    if hands:
        points = hands[0].landmarks[:, :2]
        palm = 0.5 * (points[list(_PALM)] + points[list(_PALM)].mean(axis=0))
        down = points[0] - points[[5, 9, 13, 17]].mean(axis=0)
        for place, spots in ((1, palm), (2, points[0] + _BELOW[:, None] * down)):
            pixels = np.floor(spots * size).astype(int)
            pixels = pixels[np.all((pixels >= 0) & (pixels < size), axis=1)]
            if place == 2:
                pixels = pixels[-_LAST:]
            if len(pixels):
                found[place] = np.median(image[pixels[:, 1], pixels[:, 0]], axis=0)
    return found


def color_words(record: ImageRecord) -> tuple[str, ...]:
    """What the record's attributes say of each of `PLACES`, if its text says it too; else ""."""
    attributes, said = record.attributes or {}, set(re.findall(r"[a-z]+", record.text.lower()))
    words = (str(attributes.get(place, "")) for place in PLACES)
    return tuple(word if word in said else "" for word in words)


def color_faithfulness(
    colours: np.ndarray,
    words: Sequence[Sequence[str]],
    real_colours: np.ndarray,
    real_words: Sequence[Sequence[str]],
) -> dict[str, float]:
    """The share of pictures with the colour that their prompts name, for each of `PLACES` of which they name one.

    A place that is not seen is wrong. For the real pictures themselves it is the most that the measure allows for.

    Args:
        colours, real_colours: of generated and real pictures, (N, 3, 3), see `measure_colors`.
        words, real_words: what is said of them, see `color_words`.
    """
    shares = {}
    for place, name in enumerate(PLACES):
        means = {}
        for word in sorted({of_one[place] for of_one in real_words} - {""}):
            own = real_colours[[of_one[place] == word for of_one in real_words], place]
            own = own[np.isfinite(own).all(axis=1)]
            if len(own) >= _FEWEST:
                means[word] = np.median(own, axis=0)
        asked = [row for row, of_one in enumerate(words) if of_one[place] in means]
        if len(means) < 2 or not asked:
            continue
        known, centres = list(means), np.stack(list(means.values()))
        right = [
            known[int(np.argmin(np.linalg.norm(centres - colours[row, place], axis=1)))] == words[row][place]
            for row in asked
            if np.isfinite(colours[row, place]).all()
        ]
        shares[name] = sum(right) / len(asked)
    return shares
