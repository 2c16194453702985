"""The selection of images: filters, warnings and errors."""

import json
import logging

import pytest

from hand1000.config.data_settings import FilterSettings
from hand1000.core.errors import Hand1000Error
from hand1000.data.selection import select_images
from hand1000.storage.sources import open_source
from tests.support.hagrid_source import people, select, write_hagrid


def test_too_few_training_images_are_all_used_with_a_warning(split_source, caplog):
    with caplog.at_level(logging.WARNING):
        chosen = select(split_source, 1000, 6)
    assert len(chosen.train) == 24
    assert chosen.warnings == ("four: all 24 training images are used; 1000 were asked for",)
    assert "all 24 training images" in caplog.text


@pytest.mark.parametrize("test", [7, 1000])
def test_the_error_states_the_counts_of_too_few_test_images(split_source, test):
    with pytest.raises(Hand1000Error, match=f"24 to train on and 6 of other people .* 10 and {test} are needed"):
        select(split_source, 10, test)


def test_the_error_lists_the_gestures_that_a_source_has(split_source, tmp_path):
    write_hagrid(split_source, {"u": 1}, gesture="ok")
    with pytest.raises(Hand1000Error, match="'palm'; there are: four, ok"):
        select(split_source, 1, 1, gesture="palm")


def test_the_error_names_other_faults_of_a_source(split_source, tmp_path):
    with pytest.raises(Hand1000Error, match="unknown gesture 'wave'"):
        select(split_source, 1, 1, gesture="wave")
    with pytest.raises(Hand1000Error, match="nowhere: no such folder"):
        select(tmp_path / "nowhere", 1, 1)
    (tmp_path / "bare").mkdir()
    with pytest.raises(Hand1000Error, match="bare: no images of 'four'; it is empty"):
        select(tmp_path / "bare", 1, 1)


def test_filters_remove_and_count_images(split_source):
    file = split_source / "annotations" / "train" / "four.json"
    entries = json.loads(file.read_text())
    entries["train-u1-0"]["bboxes"] = [[0.4, 0.4, 0.05, 0.09]]
    entries["train-u1-1"]["bboxes"] = [[0.0, 0.4, 0.5, 0.5]]
    entries["train-u1-2"] |= {"bboxes": [[0.4, 0.4, 0.5, 0.5]] * 3, "labels": ["four"] * 3}
    file.write_text(json.dumps(entries))
    strict = FilterSettings(min_hand_size=0.1, allow_border_hands=False, max_hands=2, min_detector_iou=0)
    chosen = select_images(open_source(split_source), ("four",), num_train=21, num_test=6, seed=1, filters=strict)
    assert "u1" not in people(chosen.train) and len(chosen.train) == 21
    assert chosen.filter_counts == (("hand too small", 1), ("hand at the border", 1), ("too many hands", 1))
    assert "u1" in people(select(split_source, 24, 6).train)


def test_filters_count_the_images_they_exclude(tmp_path):
    source = write_hagrid(tmp_path / "source", {f"u{i}": 2 for i in range(6)}, "train")
    strict = FilterSettings(min_hand_size=0.5, allow_border_hands=True, max_hands=2, min_detector_iou=0)
    with pytest.raises(Hand1000Error, match=r"0 to train on and 0 of other.*12 images filtered: hand too small"):
        select_images(open_source(source), ("four",), num_train=4, num_test=2, seed=1, filters=strict)
