"""The pictures that the small base model is trained on: hands in arbitrary poses, hardly ever a gesture."""

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hand1000.gestures import HAGRID_V1, NO_GESTURE, gesture_phrase

if TYPE_CHECKING:
    import numpy as np

_OTHER_SIDE = {"left": "right", "right": "left"}


def render_synthetic_images(
    root: Path, *, images: int, gesture_images: int, seed: int, size: int, progress: Callable[[int, int], None]
) -> None:
    """Render `images` arbitrary hands and `gesture_images` of each HaGRID v1 gesture into `root`, HaGRID's layout."""
    from hand1000.data.render.dataset import render_dataset

    counts = {NO_GESTURE: {"train": images}}
    if gesture_images:
        counts |= {gesture: {"train": gesture_images} for gesture in HAGRID_V1}
    render_dataset(root, counts, seed=seed, size=size, cache=None, progress=progress)


@dataclass(frozen=True)
class PretrainingRecord:
    """One picture: where it is, what it shows, and its hand's true landmarks (21 pairs) and box, relative to it."""

    path: Path
    caption: str
    landmarks: list[list[float]]
    box: tuple[float, ...]


def pretraining_records(root: Path, max_tilt: float) -> Iterator[PretrainingRecord]:
    """The pictures of `render_synthetic_images` in `root`, in a fixed order; only captions of a gesture say its phrase.

    Args:
        root: the set.
        max_tilt: degrees, 0 to 180, between upright and the way from the wrist to the middle finger; pictures of
            hands that are tilted more are left out.
    """
    for path in sorted((root / "annotations" / "train").glob("*.json")):
        gesture = path.stem
        for key, annotation in sorted(json.loads(path.read_text()).items()):
            landmarks = annotation["hand_landmarks"][0]
            if _tilt(landmarks) > max_tilt:
                continue
            caption = annotation["caption"]
            yield PretrainingRecord(
                root / gesture / f"{key}.jpg",
                caption if gesture == NO_GESTURE else f"{caption}, {gesture_phrase(gesture)}",
                landmarks,
                tuple(annotation["bboxes"][0]),
            )


def load_synthetic_images(root: Path, max_tilt: float) -> tuple["np.ndarray", list[str]]:
    """The pictures and their captions, then all of them mirrored: uint8 (2N, size, size, 3) and 2N captions.

    A mirrored right hand is a left hand and is called so.

    Args:
        root, max_tilt: as for `pretraining_records`.
    """
    import numpy as np
    from PIL import Image

    records = list(pretraining_records(root, max_tilt))
    pictures = np.stack([np.asarray(Image.open(record.path).convert("RGB")) for record in records])
    captions = [record.caption for record in records]
    return np.concatenate([pictures, pictures[:, :, ::-1]]), captions + [mirror_images(caption) for caption in captions]


def _tilt(landmarks: list[list[float]]) -> float:
    """Degrees between upright and the way from the wrist (landmark 0) to the middle finger's root (9)."""
    (x, y), (x_to, y_to) = landmarks[0], landmarks[9]
    return abs(math.degrees(math.atan2(x_to - x, y - y_to)))


def mirror_images(caption: str) -> str:
    """`caption` of the picture seen in a mirror."""
    return re.sub(r"\b(left|right)(?= hand\b)", lambda side: _OTHER_SIDE[side[0]], caption)
