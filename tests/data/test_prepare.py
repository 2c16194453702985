"""The preparation: crops, records, reports and errors."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hand1000.core.errors import Hand1000Error
from hand1000.core.rng import numpy_generator
from hand1000.data.crop import load_square
from hand1000.data.imageset import read_image_set
from hand1000.data.prepare import prepare_image_sets
from hand1000.storage.digests import digest_file, tree_manifest
from tests.support.hagrid_source import data_settings, select, select_gestures, write_hagrid


def prepare(root: Path, out: Path, max_unusable: float = 0.0, seed: int = 1, **kwargs):
    return prepare_image_sets(select(root, 12, 4), out, data_settings(max_unusable), resolution=16, seed=seed, **kwargs)


def test_the_image_sets_hold_the_selected_images(split_source, tmp_path):
    calls = []
    report = prepare(split_source, tmp_path / "out", on_progress=lambda done, total, *_: calls.append((done, total)))
    assert calls == [(done, 16) for done in range(1, 17)]
    assert (report.train, report.test, report.unusable, report.warnings) == (12, 4, (), ())
    train = read_image_set(tmp_path / "out" / "train")
    chosen = {f"{item.key}.png": item for item in select(split_source, 12, 4).train}
    assert [record.file_name for record in train] == sorted(chosen)
    for record in train:
        item = chosen[record.file_name]
        assert (record.user_id, record.gesture) == (item.user_id, "four")
        assert record.source == digest_file(split_source / item.file)
        assert (record.text, record.caption, record.captioner) == ("", "", "")
        square, bbox = load_square(
            split_source / item.file, 16, item.bbox, numpy_generator(1, "crop", "four", item.key)
        )
        with Image.open(tmp_path / "out/train" / record.file_name) as image:
            assert image.format == "PNG" and (np.asarray(image) == square).all()
        assert record.bbox == bbox


def test_a_moved_source_gives_the_same_bytes(split_source, tmp_path):
    other = write_hagrid(write_hagrid(tmp_path / "other", {f"u{i}": 3 for i in range(6)}, "train"), {"x": 1}, "test")
    (other / "four" / "train-u1-1.jpg").write_bytes(b"")
    moved = other.rename(tmp_path / "moved")
    digests = set()
    for source, seed in ((moved, 1), (moved, 1), (moved, 2)):
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        report = prepare_image_sets(select(source, 18, 1), out, data_settings(0.1), resolution=16, seed=seed)
        assert str(tmp_path) not in report.model_dump_json()
        digests.add((tree_manifest(out).digest, report.model_dump_json()))
    assert len(digests) == 2, "the seed places the crops, nothing else changes"


def test_unreadable_images_are_skipped_and_reported(split_source, tmp_path, caplog):
    broken = [split_source / item.file for item in select(split_source, 12, 4).train[:2]]
    broken[0].write_bytes(b"")
    broken[1].write_bytes(broken[1].read_bytes()[:300])
    report = prepare(split_source, tmp_path / "out", max_unusable=2 / 16)
    assert (report.train, report.test) == (10, 4) and len(read_image_set(tmp_path / "out" / "train")) == 10
    assert [skipped.file for skipped in report.unusable] == [f"four/{path.name}" for path in broken]
    assert report.unusable[0].reason == "empty file"
    assert str(broken[0]) in caplog.text
    with pytest.raises(Hand1000Error, match=f"2 of 16 images are unusable.*data.max_unusable.*{broken[0].name}"):
        prepare(split_source, tmp_path / "again", max_unusable=1 / 16)


def test_a_split_without_a_readable_image_is_refused(split_source, tmp_path):
    for item in select(split_source, 12, 4).test:
        (split_source / item.file).write_bytes(b"")
    with pytest.raises(Hand1000Error, match="test: none of 4 images"):
        prepare(split_source, tmp_path / "out", max_unusable=1.0)


def test_a_full_disk_stops_the_preparation(split_source, tmp_path, monkeypatch):
    # tests/storage fills a real disk; here the encoder fails.
    def raise_disk_full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", raise_disk_full)
    with pytest.raises(Hand1000Error, match="no space left"):
        prepare(split_source, tmp_path / "out")


def test_gestures_with_equal_image_names_stay_separate(tmp_path):
    for gesture in ("four", "ok"):
        (tmp_path / gesture).mkdir()
        for index in range(6):
            Image.new("RGB", (8, 8), (index, len(gesture), 0)).save(tmp_path / gesture / f"{index}.png")
    chosen = select_gestures(tmp_path, 4, 2, ("four", "ok"))
    report = prepare_image_sets(chosen, tmp_path / "out", data_settings(), resolution=16, seed=1)
    assert (report.train, report.test) == (8, 4)
    for split, count in (("train", 4), ("test", 2)):
        records = read_image_set(tmp_path / "out" / split)
        assert [record.gesture for record in records].count("ok") == count == len(records) / 2
        for record in records:
            assert record.file_name.endswith(f"-{record.gesture}.png") and record.text == ""
            pixel = np.asarray(Image.open(tmp_path / "out" / split / record.file_name))[8, 8]
            assert (pixel[0], pixel[1]) == (int(record.file_name[0]), len(record.gesture))
