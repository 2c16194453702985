"""The preparation: crops, records, reports and errors."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hand1000.core.errors import Hand1000Error
from hand1000.core.rng import numpy_generator
from hand1000.data.crop import load_square
from hand1000.data.imageset import read_image_set
from hand1000.data.prepare import PreparationReport, prepare_image_sets
from hand1000.data.selection import select_images
from hand1000.storage.digests import digest_file, tree_manifest
from hand1000.storage.sources import open_source
from tests.support.hagrid_source import NO_FILTERS, data_settings, select, select_gestures, write_hagrid
from tests.support.layouts import jsonl, write_images
from tests.support.rendered_hands import rendered_hands


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
    # tests/storage fills a real disk; here the write of an image fails.
    def raise_disk_full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", raise_disk_full)
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


def test_an_image_without_a_detected_hand_is_replaced(tmp_path):
    from hand1000.hands.detection import make_iou_check

    source, blank = tmp_path / "source", set()
    (source / "four").mkdir(parents=True)
    for split, blanks in (("train", 3), ("test", 1)):
        entries = {}
        for index, hand in enumerate([*rendered_hands(), *rendered_hands()[:blanks]]):
            name = f"{split}-{index}"
            if index >= len(rendered_hands()):
                blank.add(f"{name}.png")
            pixels = np.full_like(hand.pixels, 200) if f"{name}.png" in blank else hand.pixels
            Image.fromarray(pixels).save(source / "four" / f"{name}.png")
            entries[name] = {"bboxes": [hand.box], "labels": ["four"], "user_id": name}
        (source / "annotations" / split).mkdir(parents=True)
        (source / "annotations" / split / "four.json").write_text(json.dumps(entries))
    filters = NO_FILTERS.model_copy(update={"min_detector_iou": 0.1})
    chosen = select_images(open_source(source), ("four",), num_train=5, num_test=4, seed=1, filters=filters)
    assert blank & {f"{item.key}.png" for item in (*chosen.train[:5], *chosen.test[:4])}, "else it would show nothing"
    with make_iou_check(filters.min_detector_iou) as check:
        report = prepare_image_sets(chosen, tmp_path / "out", data_settings(), resolution=96, seed=1, check=check)
    assert (report.train, report.test) == (5, 4)
    assert report.filter_counts["hand not found by MediaPipe"] > 0
    names = {record.file_name for split in ("train", "test") for record in read_image_set(tmp_path / "out" / split)}
    assert len(names) == 9 and not names & blank
    assert names == {path.name for path in (tmp_path / "out").rglob("*.png")}
    with make_iou_check(0.95) as check, pytest.raises(Hand1000Error, match="none of 8 images.*MediaPipe rejected 8"):
        prepare_image_sets(chosen, tmp_path / "none", data_settings(), resolution=96, seed=1, check=check)


def test_broken_inputs_are_counted_and_named_the_rest_is_used(tmp_path):
    source = write_hagrid(tmp_path / "source", {f"u{i}": 4 for i in range(8)}, "train")
    write_hagrid(source, {f"w{i}": 2 for i in range(4)}, "test")
    folder = source / "four"
    jpeg = (folder / "train-u0-0.jpg").read_bytes()
    (folder / "train-u0-1.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (folder / "train-u0-2.jpg").write_bytes(b"")
    Image.new("RGB", (20, 20), "green").save(folder / "train-u1-0.jpg", format="PNG")
    Image.new("CMYK", (20, 20)).save(folder / "train-u1-1.jpg")
    Image.fromarray(np.full((20, 20), 30_000, np.uint16)).save(folder / "train-u1-2.jpg", format="PNG")
    Image.new("L", (10_000, 10_000)).save(folder / "train-u2-0.jpg", format="PNG")
    (folder / "train-u2-1.jpg").unlink()
    Image.new("RGB", (20, 20)).save(folder / "without annotation ä.jpg")
    file = source / "annotations" / "train" / "four.json"
    entries = json.loads(file.read_text())
    entries["train-u3-0"]["bboxes"] = [[1.5, 0.1, 0.2, 0.2]]
    entries["näme with blanks"] = entries.pop("train-u3-1")
    (folder / "train-u3-1.jpg").rename(folder / "näme with blanks.jpg")
    file.write_text(json.dumps(entries))
    (source / "annotations" / "val").mkdir()
    (source / "annotations" / "val" / "four.json").write_text('{"a": {"bboxes": ')
    chosen = select_images(open_source(source), ("four",), num_train=40, num_test=4, seed=1, filters=NO_FILTERS)
    report = prepare_image_sets(chosen, tmp_path / "out", data_settings(0.2), resolution=16, seed=1)
    reasons = {skipped.file.removeprefix("four/"): skipped.reason for skipped in report.unusable}
    assert set(reasons) == {"train-u0-1.jpg", "train-u0-2.jpg", "train-u2-0.jpg", "train-u3-0.jpg"}
    assert "runcated" in reasons["train-u0-1.jpg"] and reasons["train-u0-2.jpg"] == "empty file"
    assert "10000x10000 pixels" in reasons["train-u2-0.jpg"] and "outside the image" in reasons["train-u3-0.jpg"]
    warnings = " ".join(report.warnings)
    assert "train/four.json: 1 of 32 images are missing: train-u2-1" in warnings
    assert "val/four.json: skipped: not JSON" in warnings
    assert "four: 1 images have no annotation: without annotation ä.jpg" in warnings
    assert report.train == 32 - 1 - 4
    records = read_image_set(tmp_path / "out" / "train")
    assert any(record.file_name.startswith("n_me_with_blanks-") for record in records)
    cmyk, grey = (np.asarray(Image.open(tmp_path / "out/train" / f"train-u1-{index}.png")) for index in (1, 2))
    assert cmyk.shape == (16, 16, 3) and cmyk.min() >= 250 and abs(int(grey.mean()) - 30_000 // 257) <= 1
    with pytest.raises(Hand1000Error, match=r"2 of \d+ images are unusable, more than data.max_unusable = 0.05"):
        prepare_image_sets(chosen, tmp_path / "again", data_settings(0.05), resolution=16, seed=1)


def test_faults_of_a_source_are_a_share_of_the_source(tmp_path):
    """60 malformed annotations of 3,000 ended a run on 20 images, because they were held against these."""
    source = write_hagrid(tmp_path / "source", {f"u{i}": 30 for i in range(10)}, "train")
    write_hagrid(source, {"x": 6}, "train", user_id=None)
    chosen = select(source, 16, 4)
    report = prepare_image_sets(chosen, tmp_path / "out", data_settings(0.1), resolution=16, seed=1)
    assert (report.train, report.test, len(report.unusable)) == (16, 4, 6)
    with pytest.raises(Hand1000Error, match="6 of 306 images are unusable, more than data.max_unusable = 0.01"):
        prepare_image_sets(chosen, tmp_path / "again", data_settings(0.01), resolution=16, seed=1)
    broken = source / chosen.train[0].file
    broken.write_bytes(b"")
    with pytest.raises(Hand1000Error, match="1 of 20 images are unusable, more than data.max_unusable = 0.04"):
        prepare_image_sets(chosen, tmp_path / "third", data_settings(0.04), resolution=16, seed=1)


def test_records_keep_all_captions_and_where_they_come_from(tmp_path):
    write_images(tmp_path / "source")
    rows = [{"file_name": f"{i}.png", "text": text} for i in range(8) for text in ("a man", f"a person {i}")]
    jsonl(tmp_path / "source" / "metadata.jsonl", [*rows, {"file_name": "0.png", "bbox": [3, 3, 9, 9]}])
    captions = set()
    for seed in range(3):
        out = tmp_path / str(seed)
        report = prepare_image_sets(select(tmp_path / "source", 6, 2), out, data_settings(), resolution=16, seed=seed)
        records = [record for split in ("train", "test") for record in read_image_set(out / split)]
        captions.add(tuple(record.caption for record in sorted(records, key=lambda record: record.file_name)))
        for record in records:
            index = record.file_name.removesuffix(".png")
            assert record.captions == ("a man", f"a person {index}") and record.caption in record.captions
            assert record.provenance.startswith(f"{index}.png; metadata.jsonl: line ")
        assert [problem.kind for problem in report.problems] == ["box not usable"]
        assert report.problem_counts() == {"data/box not usable": 1}
        assert PreparationReport.model_validate_json(report.model_dump_json()) == report
    assert len(captions) == 3


def test_a_report_without_problems_has_the_bytes_that_it_had(split_source, tmp_path):
    report = PreparationReport(train=1, test=1, unusable=(), warnings=(), filter_counts={})
    assert set(report.model_dump(mode="json")) == {"train", "test", "unusable", "warnings", "filter_counts"}
