"""Count the hands that MediaPipe finds without and with a margin: python -m benchmarks.hands_found [--hands 60].

Rendered hands, whose landmarks are known, whole and cropped to their box or within it. The errors are mean distances of
the landmarks from the true ones as a share of the hand's longer side: median and maximum. Rendering takes minutes.
"""

import argparse
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from hand1000.core.tables import Table
from hand1000.data.render.people import make_person
from hand1000.data.render.rendered_image import RenderedImage, make_image
from hand1000.hands.detector import Hand, HandDetector

_GESTURES = ("call", "four", "like", "ok", "palm", "peace")
_RENDERED_SIDE = 480

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


def _measure_error(hands: Sequence[Hand], landmarks: np.ndarray, size: float) -> float:
    return min(float(np.linalg.norm(hand.landmarks[:, :2] - landmarks, axis=1).mean()) / size for hand in hands)


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
    print(count_found(list(render_hands(parser.parse_args().hands))).markdown())


if __name__ == "__main__":
    main()
