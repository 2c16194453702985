"""A few rendered hands with known landmarks, rendered once per session."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from hand1000.data.imageset import ImageRecord, write_metadata
from hand1000.hands.detector import Hand, HandDetector

GESTURES = ("palm", "call", "like", "peace", "rock")


@dataclass(frozen=True)
class RenderedHand:
    """An image, (S, S, 3) uint8, with the hand's true landmarks (21, 2), box and side."""

    gesture: str
    pixels: np.ndarray
    landmarks: np.ndarray
    box: tuple[float, float, float, float]
    right: bool


def render_hand(gesture: str, number: int, size: int = 96) -> RenderedHand:
    """Render the hand of person `number`."""
    from hand1000.data.render.people import make_person
    from hand1000.data.render.rendered_image import make_image

    seed = [number, *gesture.encode()]
    person = make_person(f"{gesture}-{number}", np.random.default_rng([1, *seed]))
    image = make_image(gesture, person, np.random.default_rng([2, *seed]), size=size, samples=16)
    return RenderedHand(gesture, image.pixels, image.landmarks, image.box, image.words.hand == "right")


@cache
def rendered_hands() -> tuple[RenderedHand, ...]:
    """One hand of each of `GESTURES`."""
    return tuple(render_hand(gesture, 1) for gesture in GESTURES)


def detect(image: np.ndarray) -> list[Hand]:
    """Return up to two hands in an image."""
    with HandDetector(0.5, 2) as detector:
        return detector.detect(image)


def make_record(file_name: str, **changes: object) -> ImageRecord:
    """Return the record of a training image."""
    values = {"text": "a hand", "caption": "a hand", "captioner": "test", "gesture": "palm", "user_id": "u"}
    return ImageRecord.model_validate(values | {"file_name": file_name, "source": "0" * 64} | changes)


def write_image_set(folder: Path, hands: Sequence[RenderedHand]) -> list[ImageRecord]:
    """Write the images to `folder` as an image set."""
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for index, hand in enumerate(hands):
        Image.fromarray(hand.pixels).save(folder / f"{index:03d}.png")
        records.append(make_record(f"{index:03d}.png", gesture=hand.gesture, user_id=str(index), bbox=hand.box))
    write_metadata(folder, records)
    return records
