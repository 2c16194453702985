"""The import of folders for an evaluation: the layouts of a training, and equal pixels whatever the form."""

import logging
import shutil

import numpy as np
import pytest
from PIL import Image

from hand1000.core.errors import Hand1000Error
from hand1000.data.imageset import ImageRecord, read_image_set, write_metadata
from hand1000.evaluation.folders import MAX_SIDE, import_images
from tests.support.layouts import LAYOUTS, NUM_IMAGES, facts, image, jsonl, write_images


def pixels(folder):
    return [np.asarray(Image.open(folder / record.file_name)) for record in read_image_set(folder)]


def write_image_set(folder, images):
    folder.mkdir()
    records = []
    for index, content in enumerate(images):
        content.save(folder / f"{index}.png")
        records.append(
            ImageRecord(file_name=f"{index}.png", text="a hand", gesture="four", user_id=str(index), source="0" * 64)
        )
    write_metadata(folder, records)


@pytest.mark.parametrize("side", [24, 64, 512, 700])
def test_the_same_images_have_the_same_pixels_in_either_form(tmp_path, side):
    """A plain folder was enlarged to 512 pixels, so that the distance of a set to itself was not 0."""
    images = [image(index).resize((side, side)) for index in range(3)]
    write_image_set(tmp_path / "set", images)
    shutil.copytree(tmp_path / "set", tmp_path / "plain")
    (tmp_path / "plain" / "metadata.jsonl").unlink()
    one = import_images(tmp_path / "set", tmp_path / "one", "four", None)
    other = import_images(tmp_path / "plain", tmp_path / "other", "four", None)
    assert (one == tmp_path / "set") == (side <= MAX_SIDE)
    for left, right, original in zip(pixels(one), pixels(other), images, strict=True):
        assert left.shape == (min(side, MAX_SIDE),) * 2 + (3,) and (left == right).all()
        assert side > MAX_SIDE or (left == np.asarray(original)).all()


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_that_is_trained_on_can_be_evaluated(tmp_path, name):
    LAYOUTS[name][0](tmp_path / "source")
    folder = import_images(tmp_path / "source", tmp_path / "out", "four", None)
    assert [record.gesture for record in read_image_set(folder)] == ["four"] * NUM_IMAGES
    prompts = [f"a prompt {index}, making ok sign hand gesture" for index in range(NUM_IMAGES)]
    folder = import_images(tmp_path / "source", tmp_path / "prompted", None, prompts)
    assert [record.text for record in read_image_set(folder)] == prompts


def test_images_of_all_gestures_are_imported_without_one(tmp_path):
    write_images(tmp_path / "four", range(3))
    write_images(tmp_path / "ok", range(3, 5))
    records = read_image_set(import_images(tmp_path, tmp_path / "out", None, None))
    assert [record.gesture for record in records] == ["four"] * 3 + ["ok"] * 2


def test_a_caption_names_the_gesture(tmp_path):
    write_images(tmp_path, range(2))
    text = "a man, making ok sign hand gesture"
    jsonl(tmp_path / "metadata.jsonl", [{**facts(i, text=text), "file_name": f"{i}.png", "mood": 1} for i in range(2)])
    records = read_image_set(import_images(tmp_path, tmp_path / "out", None, None))
    assert [(record.gesture, record.text) for record in records] == [("ok", text)] * 2


def test_hidden_files_are_skipped_and_others_are_named(tmp_path, caplog):
    write_images(tmp_path, range(2))
    (tmp_path / "._0.png").write_bytes(b"\0\5\x16\7")
    (tmp_path / "notes.doc").write_text("x")
    with caplog.at_level(logging.WARNING):
        assert len(read_image_set(import_images(tmp_path, tmp_path / "out", "four", None))) == 2
    assert "file not understood: 1 (notes.doc)" in caplog.text and "._0" not in caplog.text


def test_a_folder_that_names_no_gesture_is_refused(tmp_path):
    write_images(tmp_path, range(2))
    with pytest.raises(Hand1000Error, match="nothing names the gesture of its images; give --gesture or --prompts"):
        import_images(tmp_path, tmp_path / "out", None, None)


def test_an_image_without_a_record_is_evaluated_too(tmp_path):
    """A set was taken as it is with the images of its records alone."""
    write_image_set(tmp_path / "set", [image(index) for index in range(3)])
    image(3).save(tmp_path / "set" / "3.png")
    imported = import_images(tmp_path / "set", tmp_path / "imported", "four", None)
    assert len(read_image_set(imported)) == 4
