"""A few rendered hands, drawn once a session, for the tests of hands and of the evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from hand1000.data.imageset import ImageRecord, write_metadata

GESTURES = ("palm", "call", "like", "peace", "rock")


@dataclass(frozen=True)
class Rendered:
    """A picture, (S, S, 3) uint8, with its true landmarks (21, 2), box and hand."""

    gesture: str
    pixels: np.ndarray
    landmarks: np.ndarray
    box: tuple[float, float, float, float]
    right: bool


def draw(gesture: str, number: int, size: int = 96) -> Rendered:
    """One person's hand making `gesture`."""
    from hand1000.data.render.people import make_person
    from hand1000.data.render.picture import make_picture

    seed = [number, *gesture.encode()]
    person = make_person(f"{gesture}-{number}", np.random.default_rng([1, *seed]))
    picture = make_picture(gesture, person, np.random.default_rng([2, *seed]), size=size, samples=16)
    return Rendered(gesture, picture.pixels, picture.landmarks, picture.box, picture.words.hand == "right")


@cache
def rendered_hands() -> tuple[Rendered, ...]:
    """One picture of each of `GESTURES`."""
    return tuple(draw(gesture, 1) for gesture in GESTURES)


def image_set(folder: Path, pictures: Sequence[Rendered]) -> list[ImageRecord]:
    """Write the pictures to `folder` as an image set."""
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for index, picture in enumerate(pictures):
        name = f"{index:03d}.png"
        Image.fromarray(picture.pixels).save(folder / name)
        records.append(
            ImageRecord(
                file_name=name,
                text="a hand",
                caption="a hand",
                captioner="test",
                gesture=picture.gesture,
                user_id=str(index),
                bbox=picture.box,
                source="0" * 64,
            )
        )
    write_metadata(folder, records)
    return records
