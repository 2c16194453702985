"""Sources in HaGRID's layout with plain images, and shorthands to select from them."""

import json
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from hand1000.config.data_settings import DataSettings, FilterSettings
from hand1000.data.items import SourceImage
from hand1000.data.selection import Selection, select_images
from hand1000.data.sources.opening import open_dataset

NO_FILTERS = FilterSettings(min_hand_size=0, allow_border_hands=True, max_hands=100, min_detector_iou=0)


def write_hagrid(root: Path, users: dict[str, int], split: str = "train", gesture: str = "four", **fields) -> Path:
    """Add images to a HaGRID layout: `users` has the number of images per person, `fields` go into every annotation."""
    file = root / "annotations" / split / f"{gesture}.json"
    entries = json.loads(file.read_text()) if file.is_file() else {}
    (root / gesture).mkdir(parents=True, exist_ok=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    for user, count in users.items():
        for index in range(count):
            name = f"{split}-{user}-{index}"
            shade = len(entries) % 256
            Image.new("RGB", (24, 16), (shade, 10, 20)).save(root / gesture / f"{name}.jpg")
            entry = {"bboxes": [[0.4, 0.4, 0.2, 0.2]], "labels": [gesture], "user_id": user, "hand_landmarks": []}
            entries[name] = entry | fields
    file.write_text(json.dumps(entries))
    return root


def data_settings(max_unusable: float = 0.0) -> DataSettings:
    """Settings of a preparation that filters nothing."""
    return DataSettings(test_images=2, max_unusable=max_unusable, crop="hand", filters=NO_FILTERS)


def people(items: Iterable[SourceImage]) -> set[str]:
    """The people in some images."""
    return {item.user_id for item in items}


def file_keys(items: Iterable[SourceImage]) -> list[str]:
    """The keys of some images, in their order."""
    return [item.key for item in items]


def select(root: Path | str, train: int, test: int, seed: int = 1, gesture: str = "four") -> Selection:
    """Select images of one gesture without filters."""
    return select_gestures(root, train, test, (gesture,), seed)


def select_gestures(root: Path | str, train: int, test: int, gestures: tuple[str, ...], seed: int = 1) -> Selection:
    """Select images of several gestures without filters."""
    return select_images(open_dataset(root), gestures, num_train=train, num_test=test, seed=seed, filters=NO_FILTERS)
