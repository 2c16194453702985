"""Data drift between two training sets."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hand1000.data.imageset import ImageRecord, write_metadata
from hand1000.evaluation.drift import measure_drift
from hand1000.hands.stage1 import GestureFeature


def test_drift_measures_hands_words_and_boxes(tmp_path: Path) -> None:
    """The hands move by one standard deviation, half of the words are new, and the boxes are twice as large."""

    def feature(shift: float) -> GestureFeature:
        mean, std = np.full(63, shift, np.float32), np.ones(63, np.float32)
        return GestureFeature(mean, std, gesture="four", kind="normalized", images=3, found=3, images_without_hand=())

    def images(folder: Path, word: str, size: float) -> Path:
        folder.mkdir()
        records = []
        for index in range(3):
            Image.new("RGB", (8, 8)).save(folder / f"{index}.png")
            records.append(
                ImageRecord(
                    file_name=f"{index}.png",
                    text=f"{word} hand",
                    caption=f"{word} hand",
                    captioner="a",
                    gesture="four",
                    user_id=str(index),
                    bbox=(0.1, 0.1, size, size / 2),
                    source="0" * 64,
                )
            )
        write_metadata(folder, records)
        return folder

    red, blue = images(tmp_path / "a", "red", 0.2), images(tmp_path / "b", "blue", 0.4)
    same = measure_drift(red, red, [feature(0)], [feature(0)])
    assert same.vocabulary == 0 and same.new_words == () and same.features[0].largest == 0
    assert same.box_distance is not None and same.box_distance[0] == 0
    changed = measure_drift(red, blue, [feature(0)], [feature(1)])
    assert changed.features[0].mean == pytest.approx(1) and changed.box_distance is not None
    assert changed.vocabulary == pytest.approx(0.5**0.5) and (changed.new_words, changed.lost_words) == (
        ("blue",),
        ("red",),
    )
    assert changed.box_sides == pytest.approx((0.2, 0.4)) and changed.box_distance[0] == 1
