"""The pictures that the small base model is trained on: hands in arbitrary poses, hardly ever a gesture."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hand1000.gestures import HAGRID_V1, NO_GESTURE, phrase_of

if TYPE_CHECKING:
    import numpy as np

_OTHER_SIDE = {"left": "right", "right": "left"}


def render_pretraining_set(
    root: Path, *, images: int, gesture_images: int, seed: int, size: int, progress: Callable[[int, int], None]
) -> None:
    """Render `images` arbitrary hands and `gesture_images` of each HaGRID v1 gesture into `root`, HaGRID's layout."""
    from hand1000.data.render.dataset import render_dataset

    counts = {NO_GESTURE: {"train": images}}
    if gesture_images:
        counts |= {gesture: {"train": gesture_images} for gesture in HAGRID_V1}
    render_dataset(root, counts, seed=seed, size=size, cache=None, progress=progress)


def load_pretraining_set(root: Path, max_tilt: float) -> tuple["np.ndarray", list[str]]:
    """The pictures and their captions, then all of them mirrored: uint8 (2N, size, size, 3) and 2N captions.

    Only captions of a gesture say its phrase; a mirrored right hand is a left hand and is called so.

    Args:
        root: of `render_pretraining_set`.
        max_tilt: degrees, 0 to 180, between upright and the way from the wrist to the middle finger; pictures of
            hands that are tilted more are left out.
    """
    import numpy as np
    from PIL import Image

    images, captions = [], []
    for path in sorted((root / "annotations" / "train").glob("*.json")):
        gesture = path.stem
        for key, annotation in sorted(json.loads(path.read_text()).items()):
            if _tilt(annotation["hand_landmarks"][0]) > max_tilt:
                continue
            images.append(np.asarray(Image.open(root / gesture / f"{key}.jpg").convert("RGB")))
            caption = annotation["caption"]
            captions.append(caption if gesture == NO_GESTURE else f"{caption}, {phrase_of(gesture)}")
    pictures = np.stack(images)
    return np.concatenate([pictures, pictures[:, :, ::-1]]), captions + [mirrored(caption) for caption in captions]


def _tilt(landmarks: list[list[float]]) -> float:
    """Degrees between upright and the way from the wrist (landmark 0) to the middle finger's root (9)."""
    (x, y), (x_to, y_to) = landmarks[0], landmarks[9]
    return abs(math.degrees(math.atan2(x_to - x, y - y_to)))


def mirrored(caption: str) -> str:
    """`caption` of the picture seen in a mirror."""
    return re.sub(r"\b(left|right)(?= hand\b)", lambda side: _OTHER_SIDE[side[0]], caption)
