"""Count the hands that MediaPipe finds: python -m benchmarks.hands_found [--hands 60] [--by-gesture].

Rendered hands, whose landmarks are known, without and with a margin: whole, and cropped to their box or within it. The
errors are mean distances of the landmarks from the true ones as a share of the hand's longer side: median and maximum.
`--by-gesture` instead draws so many images of each gesture and counts those with a hand, as Stage I looks for it, and
the hands whose landmarks are within 0.2 of the true ones. Rendering takes minutes.
"""

import argparse
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from PIL import Image

from hand1000.core.tables import Table
from hand1000.data.render.people import make_person
from hand1000.data.render.rendered_image import RenderedImage, make_image
from hand1000.gestures import HAGRID_V2
from hand1000.hands.detection import match_labelled_hand
from hand1000.hands.detector import Hand, HandDetector

_GESTURES = ("call", "four", "like", "ok", "palm", "peace")
_RENDERED_SIDE = 480
_GESTURE_SIDE, _MAX_ERROR = 64, 0.2

# Sides of the images in pixels, and how much of the hand's box is cut off: nothing, or a share on each side.
_IMAGES = {
    "whole, 480 px": (480, None),
    "whole, 64 px": (64, None),
    "cropped to the box, 512 px": (512, 0.0),
    "cropped to 0.88 of the box, 512 px": (512, 0.06),
}


def render_hands(count: int) -> Iterator[RenderedImage]:
    """Render hands of different people and gestures."""
    for index in range(count):
        person = make_person(f"bench-{index}", np.random.default_rng([1, index]))
        generator = np.random.default_rng([2, index])
        yield make_image(_GESTURES[index % 6], person, generator, size=_RENDERED_SIDE, samples=8)


def crop_hand(image: RenderedImage, side: int, cut: float | None) -> tuple[np.ndarray, np.ndarray, float]:
    """Return pixels (side, side, 3), true landmarks (21, 2) and the hand's longer side, relative to the crop."""
    x, y, width, height = image.box
    extent = 1.0 if cut is None else max(width, height) * (1 - 2 * cut)
    left, top = (0.0, 0.0) if cut is None else (x + (width - extent) / 2, y + (height - extent) / 2)
    corners = [value * _RENDERED_SIDE for value in (left, top, left + extent, top + extent)]
    crop = Image.fromarray(image.pixels).crop((corners[0], corners[1], corners[2], corners[3]))
    pixels = np.asarray(crop.resize((side, side), Image.Resampling.LANCZOS))
    return pixels, (image.landmarks - [left, top]) / extent, max(width, height) / extent


def count_by_gesture(gestures: Iterable[str], count: int) -> Table:
    """Return one row for each gesture, of `count` images of the size of the small base model."""
    rows = []
    with HandDetector(0.5, 2) as detector:
        for number, gesture in enumerate(gestures):
            images = located = hands = 0
            for index in range(count):
                person = make_person(f"bench-{index}", np.random.default_rng([3, number, index]))
                generator = np.random.default_rng([4, number, index])
                image = make_image(gesture, person, generator, size=_GESTURE_SIDE, samples=9)
                found = detector.detect(image.pixels)
                if match_labelled_hand(found, image.box) is None:
                    found = detector.detect_with_margin(image.pixels)
                images += match_labelled_hand(found, image.box) is not None
                sizes = np.ptp(image.hand_landmarks, axis=1).max(axis=1)
                errors = [
                    _measure_error(found, points, size)
                    for points, size in zip(image.hand_landmarks, sizes, strict=True)
                ]
                located += sum(error < _MAX_ERROR for error in errors)
                hands += len(errors)
            rows.append((gesture, f"{images} of {count}", f"{located} of {hands}"))
    return Table(("gesture", "images with a hand", "hands located"), tuple(rows))


def _measure_error(hands: Sequence[Hand], landmarks: np.ndarray, size: float) -> float:
    errors = (float(np.linalg.norm(hand.landmarks[:, :2] - landmarks, axis=1).mean()) / size for hand in hands)
    return min(errors, default=np.inf)


def count_found(images: Sequence[RenderedImage]) -> Table:
    """Return one row for each kind of `_IMAGES`."""
    rows = []
    with HandDetector(0.5, 2) as detector:
        for name, (side, cut) in _IMAGES.items():
            first, retried = [], []
            for image in images:
                pixels, landmarks, size = crop_hand(image, side, cut)
                if hands := detector.detect(pixels):
                    first.append(_measure_error(hands, landmarks, size))
                elif hands := detector.detect_with_margin(pixels):
                    retried.append(_measure_error(hands, landmarks, size))
            rows.append((name, len(first), _describe(first), len(first) + len(retried), _describe(retried)))
    header = ("images", "found", "error", "found with a second try", "error of those")
    return Table(header, tuple(tuple(map(str, row)) for row in rows))


def _describe(errors: Sequence[float]) -> str:
    return f"{np.median(errors):.3f}, {max(errors):.3f}" if errors else "-"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hands", type=int, default=60)
    parser.add_argument("--by-gesture", action="store_true")
    options = parser.parse_args()
    if options.by_gesture:
        table = count_by_gesture(HAGRID_V2, options.hands)
    else:
        table = count_found(list(render_hands(options.hands)))
    print(table.markdown())


if __name__ == "__main__":
    main()
