"""The reader of folders of images and of published datasets."""

import json

import pytest
from PIL import Image

from hand1000.core.errors import Hand1000Error
from tests.support.hagrid_source import file_keys, people, select, select_gestures


@pytest.mark.parametrize("below", ["", "four"])
def test_each_image_without_a_person_counts_as_one(tmp_path, below):
    folder = tmp_path / below
    folder.mkdir(exist_ok=True)
    for index in range(10):
        Image.new("RGB", (8, 8), (index, 0, 0)).save(folder / f"image {index}.PNG")
    for copy in range(5):  # Copies of one image are one person.
        Image.new("RGB", (8, 8), (99, 0, 0)).save(folder / f"copy{copy}.png")
    (folder / "readme.txt").write_text("x")
    chosen = select(tmp_path, 15, 4)
    assert not people(chosen.train) & people(chosen.test)
    assert len(people(chosen.train)) + len(people(chosen.test)) <= 11
    assert len(set(file_keys(chosen.train + chosen.test))) == len(chosen.train + chosen.test)
    assert all(" " not in key for key in file_keys(chosen.train))


def test_an_imagefolders_metadata_is_used(tmp_path):
    for name in ("a.png", "a.jpg", "b.png"):
        Image.new("RGB", (8, 8), (len(name), ord(name[-1]), ord(name[0]))).save(tmp_path / name)
    lines = [
        {"file_name": "a.png", "text": "a man", "user_id": "x", "bbox": [0.1, 0.1, 0.5, 0.5], "column": 1},
        {"file_name": "a.jpg", "text": "another", "caption": "before its completion", "user_id": "x"},
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    chosen = select(tmp_path, 2, 1)
    items = {item.file: item for item in chosen.train + chosen.test}
    assert items["a.png"].caption == "a man" and items["a.jpg"].caption == "another" and items["b.png"].caption is None
    assert items["a.png"].bbox == (0.1, 0.1, 0.5, 0.5) and items["a.png"].user_id == "x"
    assert len(set(file_keys(items.values()))) == 3
    (tmp_path / "metadata.jsonl").write_text('\n{"file_name": "../c.png"}')
    (problem,) = select(tmp_path, 1, 1).problems
    assert (problem.kind, problem.names) == ("line without an image", ("metadata.jsonl: line 2: ../c.png",))


def test_a_published_data_set_keeps_its_split(tmp_path):
    for split, names in (("train", "abcd"), ("test", "wxyz")):
        (tmp_path / split).mkdir()
        lines = []
        for index, person in enumerate(names):
            Image.new("RGB", (8, 8), (ord(person), 0, 0)).save(tmp_path / split / f"{person}.png")
            gesture = "ok" if index == 3 else "four"
            lines.append({"file_name": f"{person}.png", "caption": "a man", "gesture": gesture, "user_id": person})
        (tmp_path / split / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    chosen = select(tmp_path, 9, 3)
    assert people(chosen.train) == set("abc") and people(chosen.test) == set("wxy")
    with pytest.raises(Hand1000Error, match="no images of 'fist'; there are: four, ok"):
        select(tmp_path, 1, 1, gesture="fist")


def test_images_of_several_gestures_need_their_gesture(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(Hand1000Error, match="a.png: its gesture is unknown; put .* into folders of their"):
        select_gestures(tmp_path, 1, 1, ("four", "ok"))
    for gesture in ("four", "ok"):
        (tmp_path / "below" / gesture).mkdir(parents=True)
        for index in range(4):
            shade = (index, len(gesture), 0)
            Image.new("RGB", (8, 8), shade).save(tmp_path / "below" / gesture / f"{index}.png")
    # Each image counts as a person, so that no one is held out in vain.
    assert len(select_gestures(tmp_path / "below", 2, 2, ("four", "ok")).train) == 4
