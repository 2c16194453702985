"""The reader of HaGRID's layout: boxes, attributes, and what it reports of malformed annotations."""

import json

import pytest
from PIL import Image

from hand1000.core.errors import Hand1000Error
from hand1000.data.prepare import prepare_image_sets
from tests.support.hagrid_source import data_settings, select, write_hagrid


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"bboxes": [[0, 0, 1]]}, "annotation: Expected `array` of length 4 - at `$.bboxes[0]`"),
        ({"user_id": None}, "annotation: Expected `str`, got `null` - at `$.user_id`"),
        ({"united_bbox": [[0.1]], "united_label": ["four"]}, "annotation: Expected `array` of length 4, got 1"),
        ({"labels": []}, "annotation: 1 bboxes but 0 labels"),
        ({"bboxes": [[1.2, 0.1, 0.5, 0.5]]}, "it is outside the image"),
    ],
)
def test_a_malformed_annotation_is_skipped_and_reported(split_source, tmp_path, fields, reason):
    file = split_source / "annotations" / "train" / "four.json"
    entries = json.loads(file.read_text())
    entries["train-u1-0"] |= fields
    file.write_text(json.dumps(entries))
    chosen = select(split_source, 23, 6)
    (skipped,) = chosen.unusable
    assert skipped.file == "four/train-u1-0.jpg" and reason in skipped.reason
    assert len(chosen.train) == 23
    report = prepare_image_sets(chosen, tmp_path / "out", data_settings(0.1), resolution=8, seed=1)
    assert report.unusable == (skipped,)
    with pytest.raises(Hand1000Error, match=r"1 of 32 images are unusable.*data\.max_unusable.*train-u1-0"):
        prepare_image_sets(chosen, tmp_path / "other", data_settings(0.01), resolution=8, seed=1)


def test_the_error_names_one_of_many_malformed_annotations(tmp_path):
    write_hagrid(tmp_path, {"u": 2}, user_id=None)
    with pytest.raises(Hand1000Error, match=r"too few images.*2 issues, the first: four/train-u-0.jpg.*user_id"):
        select(tmp_path, 1, 1)


def test_unmatched_images_and_annotations_are_reported(split_source):
    """Annotations without an image, images without an annotation, and a file that is not JSON."""
    for path in (split_source / "four").glob("train-u1-*.jpg"):
        path.unlink()
    Image.new("RGB", (9, 9)).save(split_source / "four" / "näme with blanks.jpg")
    (split_source / "annotations" / "val" / "four.json").write_text('{"a":')
    chosen = select(split_source, 15, 6)
    assert len(chosen.train) == 15 and chosen.unusable == ()
    warnings = " ".join(chosen.warnings)
    assert "train/four.json: 3 of 18 images are missing: train-u1-0" in warnings
    assert "val/four.json: skipped: not JSON" in warnings and "7 images have no annotation" in warnings
    assert str(split_source) not in warnings


@pytest.mark.parametrize(
    ("fields", "box"),
    [
        ({"bboxes": [[0, 0, 0.9, 0.9], [0.1, 0.1, 0.2, 0.2]], "labels": ["no_gesture", "four"]}, (0.1, 0.1, 0.2, 0.2)),
        ({"bboxes": [[0, 0, 0.1, 0.1], [0.5, 0.5, 0.2, 0.2]], "labels": ["four"] * 2}, (0.5, 0.5, 0.2, 0.2)),
        ({"bboxes": [[-0.1, 0.5, 0.3, 0.7]]}, (0.0, 0.5, 0.2, 0.5)),
        ({"labels": ["no_gesture"]}, None),
        ({"united_bbox": [[0.1, 0.2, 0.3, 0.4]], "united_label": ["four"]}, (0.1, 0.2, 0.3, 0.4)),
        ({"united_bbox": [0.1, 0.2, 0.3, 0.4], "united_label": "four"}, (0.1, 0.2, 0.3, 0.4)),
        ({"united_bbox": [[0.1, 0.2, 0.3, 0.4]], "united_label": ["timeout"]}, (0.4, 0.4, 0.2, 0.2)),
        ({"united_bbox": None, "united_label": None}, (0.4, 0.4, 0.2, 0.2)),
    ],
)
def test_the_box_is_that_of_the_gesturing_hand(tmp_path, fields, box):
    write_hagrid(tmp_path, {"u": 1, "v": 1}, **fields)
    (item,) = select(tmp_path, 1, 1).train
    assert item.bbox == (pytest.approx(box) if box else None)


def test_attributes_are_kept_but_not_guesses_of_the_person(tmp_path):
    meta = {"age": [24.1], "gender": ["female"], "race": ["x"], "skin": "dark"}
    write_hagrid(tmp_path, {"u": 1, "v": 1}, leading_hand="right", caption="a hand", meta=meta)
    (item,) = select(tmp_path, 1, 1).train
    assert item.attributes == {"skin": "dark", "handedness": "right"} and item.caption == "a hand"


def test_annotations_before_a_fault_in_their_file_are_used(tmp_path):
    source = write_hagrid(tmp_path / "source", {f"u{i}": 1 for i in range(6)}, "train")
    file = source / "annotations" / "train" / "four.json"
    file.write_text(file.read_text()[:-200])
    chosen = select(source, 9, 2)
    assert len(chosen.train) == 2 and "four.json: skipped after 4 images: not JSON" in " ".join(chosen.warnings)
