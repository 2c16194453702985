"""Sources on S3, images that MediaPipe refuses, and everything that can be broken in one source at once."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hand1000.cli.main import main
from hand1000.config.data_settings import FilterSettings
from hand1000.core.errors import Hand1000Error
from hand1000.data.check import check_source, list_gestures, report_lines
from hand1000.data.imageset import read_image_set
from hand1000.data.prepare import prepare_image_sets
from hand1000.data.selection import select_images, selection_facts
from hand1000.storage.digests import tree_manifest
from hand1000.storage.s3 import s3_client
from hand1000.storage.sources import S3Source, open_source
from tests.support.hagrid_source import NO_FILTERS, data_settings, write_hagrid
from tests.support.rendered_hands import rendered_hands


def upload(folder: Path, address: str) -> None:
    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    client = s3_client()
    for path in folder.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), bucket, f"{prefix}/{path.relative_to(folder).as_posix()}")


def prepared(address: Path | str, out: Path, train: int, test: int) -> str:
    chosen = select_images(
        open_source(address),
        ("four",),
        num_train=train,
        num_test=test,
        seed=1,
        filters=NO_FILTERS,
    )
    prepare_image_sets(chosen, out, data_settings(), resolution=16, seed=1)
    return tree_manifest(out).digest


def test_a_prefix_equals_its_folder_and_only_selected_are_fetched(s3_root, tmp_path, monkeypatch):
    source = write_hagrid(tmp_path / "source", {f"u{i}": 3 for i in range(6)}, "train")
    write_hagrid(source, {f"w{i}": 2 for i in range(3)}, "test")
    write_hagrid(source, {"x": 1}, gesture="ok")
    upload(source, s3_root)
    fetched: list[str] = []
    fetch = S3Source.local_path
    monkeypatch.setattr(S3Source, "local_path", lambda self, name: (fetched.append(name), fetch(self, name))[1])
    assert prepared(s3_root, tmp_path / "s3", 5, 2) == prepared(source, tmp_path / "local", 5, 2)
    images = [key for key in fetched if key.endswith(".jpg")]
    assert len(images) == 7 and not any("ok" in key for key in fetched)

    arguments = {"num_train": 5, "num_test": 2, "seed": 1, "filters": NO_FILTERS}
    before = selection_facts(select_images(open_source(s3_root), ("four",), **arguments))
    assert selection_facts(select_images(open_source(s3_root), ("four",), **arguments)) == before
    Image.new("RGB", (30, 30), "red").save(source / "four" / Path(images[0]).name)
    upload(source, s3_root)
    assert selection_facts(select_images(open_source(s3_root), ("four",), **arguments)) != before


def test_a_users_images_on_s3(s3_root, tmp_path):
    (tmp_path / "own").mkdir()
    for index in range(6):
        Image.new("RGB", (20, 20), (40 * index, 0, 0)).save(tmp_path / "own" / f"{index}.png")
    upload(tmp_path / "own", s3_root)
    assert prepared(s3_root, tmp_path / "s3", 3, 2) == prepared(tmp_path / "own", tmp_path / "local", 3, 2)
    with pytest.raises(Hand1000Error, match="nothing-here: no images of 'four'; it is empty"):
        prepared(f"{s3_root}/nothing-here", tmp_path / "x", 1, 1)
    with pytest.raises(Hand1000Error, match="no-such-bucket-of-ours.*create it or correct the name"):
        prepared("s3://no-such-bucket-of-ours/x", tmp_path / "x", 1, 1)


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


def test_broken_inputs_are_counted_and_named_and_the_rest_is_used(tmp_path):
    source = write_hagrid(tmp_path / "source", {f"u{i}": 4 for i in range(8)}, "train")
    write_hagrid(source, {f"w{i}": 2 for i in range(4)}, "test")
    folder = source / "four"
    whole = (folder / "train-u0-0.jpg").read_bytes()
    (folder / "train-u0-1.jpg").write_bytes(whole[: len(whole) // 2])
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
    said = {one.file.removeprefix("four/"): one.reason for one in report.unusable}
    assert set(said) == {"train-u0-1.jpg", "train-u0-2.jpg", "train-u2-0.jpg", "train-u3-0.jpg"}
    assert "runcated" in said["train-u0-1.jpg"] and said["train-u0-2.jpg"] == "empty file"
    assert "10000x10000 pixels" in said["train-u2-0.jpg"] and "outside the image" in said["train-u3-0.jpg"]
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


def test_annotations_before_a_fault_in_their_file_are_used(tmp_path):
    source = write_hagrid(tmp_path / "source", {f"u{i}": 1 for i in range(6)}, "train")
    file = source / "annotations" / "train" / "four.json"
    file.write_text(file.read_text()[:-200])
    chosen = select_images(open_source(source), ("four",), num_train=9, num_test=2, seed=1, filters=NO_FILTERS)
    assert len(chosen.train) == 2 and "four.json: skipped after 4 images: not JSON" in " ".join(chosen.warnings)


def test_filters_count_the_images_they_exclude(tmp_path):
    source = write_hagrid(tmp_path / "source", {f"u{i}": 2 for i in range(6)}, "train")
    strict = FilterSettings(min_hand_size=0.5, allow_border_hands=True, max_hands=2, min_detector_iou=0)
    with pytest.raises(Hand1000Error, match=r"0 to train on and 0 of other.*12 images filtered: hand too small"):
        select_images(open_source(source), ("four",), num_train=4, num_test=2, seed=1, filters=strict)


def test_the_check_of_a_source_names_what_is_wrong(tmp_path):
    source = write_hagrid(tmp_path / "source", {f"u{i}": 2 for i in range(3)}, "train", caption="a hand")
    write_hagrid(source, {"w": 1}, "test", gesture="ok", bboxes=[], labels=[])
    (source / "four" / "train-u0-0.jpg").write_bytes(b"no image")
    assert list_gestures(open_source(source)) == ["four", "ok"]
    done: list[int] = []
    four, ok = (
        check_source(open_source(source), gesture, lambda images, _: done.append(images)) for gesture in ("four", "ok")
    )
    assert (four.images, four.people, four.labelled, four.captioned, four.has_split) == (6, 3, 6, 6, False)
    assert [(one.file, one.reason) for one in four.unusable] == [("four/train-u0-0.jpg", "not an image")]
    assert (ok.images, ok.labelled, ok.captioned) == (1, 0, 0) and done[0] == 6
    lines = list(report_lines([four, ok], max_listed=0))
    assert lines[1].split() == ["four", "6", "3", "6", "6", "no", "1"] and lines[-1] == "unusable: and 1 more of four"


def test_the_command_checks_a_folder_and_sets_its_exit_status(tmp_path, capsys):
    source = write_hagrid(tmp_path / "source", {f"u{i}": 2 for i in range(3)}, "train")
    assert main(["data", "check", str(source)]) == 0
    assert "four" in capsys.readouterr().out
    (source / "four" / "train-u0-0.jpg").write_bytes(b"no image")
    assert main(["data", "check", str(source), "--gesture", "four"]) == 2
    said = capsys.readouterr()
    assert "unusable: four/train-u0-0.jpg: not an image" in said.out and "1 of 6 images cannot be used" in said.err
    assert main(["data", "check", str(tmp_path / "nowhere")]) == 2
    assert "nowhere: no such folder" in capsys.readouterr().err
