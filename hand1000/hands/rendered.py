"""Rendered pictures with all that is known of them, for the recipes of the two small networks that ship."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from hand1000.data.render import render_dataset
from hand1000.gestures import HAGRID_V1, NO_GESTURE


@dataclass(frozen=True)
class RenderedHands:
    """N pictures, sorted by gesture.

    Attributes:
        images: (N, S, S, 3) uint8 RGB.
        gestures: N of HaGRID v1's names or `no_gesture`.
        landmarks: (N, 21, 2) float32, the true ones relative to the picture.
        attributes: of each: skin, sleeve, wall, light, handedness.
    """

    images: np.ndarray
    gestures: list[str]
    landmarks: np.ndarray
    attributes: list[dict[str, str]]


def load_rendered_hands(
    *, num_train: int, num_test: int, seed: int, size: int, progress: Callable[[int, int], None] | None = None
) -> tuple[RenderedHands, RenderedHands]:
    """Render `num_train` and `num_test` pictures of each gesture and three times as many of arbitrary poses, which
    differ more; nobody is in both.

    Pictures that the renderer's cache holds are not rendered again. `progress` is called with those done and all.
    """
    counts = {gesture: {"train": num_train, "test": num_test} for gesture in HAGRID_V1}
    counts[NO_GESTURE] = {"train": 3 * num_train, "test": 3 * num_test}
    with tempfile.TemporaryDirectory() as folder:
        render_dataset(Path(folder), counts, seed=seed, size=size, progress=progress)
        return _read(Path(folder), "train"), _read(Path(folder), "test")


def _read(root: Path, split: str) -> RenderedHands:
    images, gestures, landmarks, attributes = [], [], [], []
    for path in sorted((root / "annotations" / split).glob("*.json")):
        for key, annotation in sorted(json.loads(path.read_text()).items()):
            with Image.open(root / path.stem / f"{key}.jpg") as picture:
                images.append(np.asarray(picture.convert("RGB")))
            gestures.append(path.stem)
            landmarks.append(annotation["hand_landmarks"][0])
            attributes.append(annotation["meta"])
    return RenderedHands(np.stack(images), gestures, np.array(landmarks, np.float32), attributes)
