"""Rendered hands with their true annotations: the data of the small base model and of the small networks that ship."""

import math
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hand1000.core.progress import ProgressCallback
from hand1000.data.render.dataset import render_dataset
from hand1000.gestures import HAGRID_V1, NO_GESTURE, gesture_phrase
from hand1000.storage.files import read_json
from hand1000.storage.images import read_rgb

_OTHER_SIDE = {"left": "right", "right": "left"}


@dataclass(frozen=True)
class RenderedHands:
    """N images, sorted by gesture.

    Attributes:
        images: (N, S, S, 3) uint8 RGB.
        gestures: N of HaGRID's names or `no_gesture`. Every hand of an image makes its gesture.
        hand_landmarks: N arrays (H, 21, 2) float32, the true landmarks relative to the image; H is 2 for the gestures
            of `TWO_HANDED` and otherwise 1.
        attributes: Skin, sleeve, wall, light and handedness of each image.
    """

    images: np.ndarray
    gestures: list[str]
    hand_landmarks: list[np.ndarray]
    attributes: list[dict[str, str]]

    @property
    def landmarks(self) -> np.ndarray:
        """The landmarks of the first hand of each image, (N, 21, 2) float32."""
        return np.stack([hands[0] for hands in self.hand_landmarks])


@dataclass(frozen=True)
class SyntheticRecord:
    """One image file with its true annotations, relative to the image.

    Attributes:
        path: The image file.
        gesture: HaGRID's name or `no_gesture`.
        caption: That of a gesture ends with its phrase.
        hand_landmarks: 21 points of each hand.
        box: Box of the hand, or around both.
        attributes: Skin, sleeve, wall, light and handedness.
    """

    path: Path
    gesture: str
    caption: str
    hand_landmarks: list[list[list[float]]]
    box: tuple[float, ...]
    attributes: dict[str, str]

    @property
    def landmarks(self) -> list[list[float]]:
        """The 21 points of the first hand."""
        return self.hand_landmarks[0]


def load_rendered_hands(
    *,
    num_train: int,
    num_test: int,
    seed: int,
    size: int,
    gestures: Sequence[str] = HAGRID_V1,
    on_progress: ProgressCallback | None = None,
) -> tuple[RenderedHands, RenderedHands]:
    """Render training and test images: so many per gesture, and three times as many arbitrary poses, which vary more.

    No person is in both, and images in the renderer's cache are not rendered again. `gestures` may be any of HaGRID
    v2's; an image of one of `TWO_HANDED` has two hands.
    """
    counts = {gesture: {"train": num_train, "test": num_test} for gesture in gestures}
    counts[NO_GESTURE] = {"train": 3 * num_train, "test": 3 * num_test}
    with tempfile.TemporaryDirectory() as folder:
        render_dataset(Path(folder), counts, seed=seed, size=size, on_progress=on_progress)
        return _load_split(Path(folder), "train"), _load_split(Path(folder), "test")


def _load_split(root: Path, split: str) -> RenderedHands:
    records = list(_iter_records(root, split))
    return RenderedHands(
        np.stack([_load_image(record.path) for record in records]),
        [record.gesture for record in records],
        [np.array(record.hand_landmarks, np.float32) for record in records],
        [record.attributes for record in records],
    )


def render_synthetic_images(
    root: Path, *, images: int, gesture_images: int, seed: int, size: int, on_progress: ProgressCallback
) -> None:
    """Render `images` arbitrary hands and `gesture_images` of each HaGRID v1 gesture into `root`, HaGRID's layout."""
    counts = {NO_GESTURE: {"train": images}}
    if gesture_images:
        counts |= {gesture: {"train": gesture_images} for gesture in HAGRID_V1}
    render_dataset(root, counts, seed=seed, size=size, on_progress=on_progress)


def iter_synthetic_records(root: Path, max_tilt: float) -> Iterator[SyntheticRecord]:
    """Yield the images of `render_synthetic_images` in a fixed order, without hands that are tilted too much.

    `max_tilt` is the largest angle between upright and the hand's direction, in degrees, 0 to 180.
    """
    return (record for record in _iter_records(root, "train") if _tilt_degrees(record.landmarks) <= max_tilt)


def load_synthetic_images(root: Path, max_tilt: float) -> tuple[np.ndarray, list[str]]:
    """Load the images of `iter_synthetic_records` and their captions, followed by all of them mirrored.

    Returns:
        uint8 RGB (2N, size, size, 3) and 2N captions, in which a mirrored right hand is called a left hand.
    """
    records = list(iter_synthetic_records(root, max_tilt))
    images = np.stack([_load_image(record.path) for record in records])
    captions = [record.caption for record in records]
    return np.concatenate([images, images[:, :, ::-1]]), captions + [mirror_caption(caption) for caption in captions]


def mirror_caption(caption: str) -> str:
    """Return the caption of the mirrored image."""
    return re.sub(r"\b(left|right)(?= hand\b)", lambda side: _OTHER_SIDE[side[0]], caption)


def _iter_records(root: Path, split: str) -> Iterator[SyntheticRecord]:
    for file in sorted((root / "annotations" / split).glob("*.json")):
        gesture, phrase = file.stem, "" if file.stem == NO_GESTURE else f", {gesture_phrase(file.stem)}"
        for key, facts in sorted(read_json(file).items()):
            path, caption = root / gesture / f"{key}.jpg", f"{facts['caption']}{phrase}"
            (box,) = facts.get("united_bbox") or facts["bboxes"]
            yield SyntheticRecord(path, gesture, caption, facts["hand_landmarks"], tuple(box), facts["meta"])


def _load_image(path: Path) -> np.ndarray:
    return np.asarray(read_rgb(path))


def _tilt_degrees(landmarks: list[list[float]]) -> float:
    """Return the angle between upright and the direction from the wrist (0) to the middle finger's root (9)."""
    (x, y), (x_to, y_to) = landmarks[0], landmarks[9]
    return abs(math.degrees(math.atan2(x_to - x, y - y_to)))
