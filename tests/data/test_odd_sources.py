"""Odd names, links and files of a source: each is used or named, and every error is one line with a remedy."""

import os
import re
import tarfile

import pytest
from PIL import Image

from hand1000.cli.main import main
from hand1000.core.errors import Hand1000Error
from hand1000.data import problem_kinds
from hand1000.data.boxes import UnusableBoxError, parse_box
from hand1000.data.check import check_source
from hand1000.data.prepare import prepare_image_sets
from hand1000.data.sources.opening import open_dataset
from hand1000.evaluation.folders import import_images
from tests.support.hagrid_source import data_settings, select
from tests.support.layouts import add_member, jsonl, png, write_images


def problems(folder):
    report = check_source(open_dataset(folder), "four")
    return report.images, {problem.kind: problem.names for problem in report.problems}


def test_a_name_with_a_line_break_stays_in_one_line(tmp_path, capsys):
    write_images(tmp_path / "four", range(3))
    (tmp_path / "four" / "x\ny.png").write_bytes(b"no image")
    (tmp_path / "four" / "x\ny.xyz").write_bytes(b"")
    assert main(["data", "check", str(tmp_path), "--gesture", "four"]) == 0
    assert rf"problem: {problem_kinds.BAD_NAME}: 2 (four/x\ny.png; four/x\ny.xyz); rename it" in capsys.readouterr().out


def test_names_that_are_not_utf8_are_counted(tmp_path):
    write_images(tmp_path / "four", range(3))
    for suffix in (b".png", b".xyz"):
        with open(os.fsencode(tmp_path / "four") + b"/\xff" + suffix, "wb") as file:
            file.write(png(4))
    assert problems(tmp_path) == (3, {problem_kinds.BAD_NAME: (r"four/\udcff.png", r"four/\udcff.xyz")})
    with tarfile.open(tmp_path / "four" / "a.tar", "w") as tar:
        add_member(tar, "\udcff.png", png(5))
    assert problems(tmp_path)[1][problem_kinds.MEMBER] == (r"four/a.tar: '\udcff.png'",)


def test_links_are_followed_and_named(tmp_path):
    write_images(tmp_path / "elsewhere", range(3, 4))
    write_images(tmp_path / "source" / "four", range(3))
    folder = tmp_path / "source" / "four"
    (folder / "3.png").symlink_to(tmp_path / "elsewhere" / "3.png")
    (folder / "4.png").symlink_to("0.png")
    (folder / "5.png").symlink_to("nowhere.png")
    os.mkfifo(folder / "6.png")
    expected = {problem_kinds.NO_FILE: ("four/5.png", "four/6.png"), problem_kinds.OUTER_LINK: ("four/3.png",)}
    assert problems(tmp_path / "source") == (5, expected)


def test_a_folder_that_is_called_like_an_archive_is_named(tmp_path):
    write_images(tmp_path / "four", range(3))
    write_images(tmp_path / "x.tar", range(2))
    (tmp_path / "y.parquet").mkdir()
    assert problems(tmp_path) == (3, {problem_kinds.UNKNOWN_FILE: ("x.tar/", "y.parquet/")})


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda data: data[: data.index(b"2.png") + 100], "it is cut short"),
        (lambda data: data.rstrip(b"\0"), "unexpected end of data|it is cut short"),
        (lambda data: data + data, "more members after its end"),
        (lambda data: data.replace(b"2.png", b"3.png"), "no header at byte"),
    ],
)
def test_a_tar_that_is_damaged_is_refused(tmp_path, damage, fault):
    """tarfile takes the first header that it cannot read for the end, without a word."""
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for index in range(4):
            add_member(tar, f"{index}.png", png(index))
    assert len(select(tmp_path, 2, 2).train) == 2
    (tmp_path / "a.tar").write_bytes(damage((tmp_path / "a.tar").read_bytes()))
    with pytest.raises(Hand1000Error, match=rf"a.tar: cannot be read as a tar \(.*({fault}).*\); download it or pack"):
        select(tmp_path, 1, 1)


def test_a_table_with_a_column_twice_is_refused(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_images(tmp_path, range(3))
    (tmp_path / "metadata.csv").write_text("file_name,text,text\n0.png,a,b\n")
    with pytest.raises(Hand1000Error, match=r"metadata.csv: several columns are called 'text'; rename all but one"):
        select(tmp_path, 1, 1)
    (tmp_path / "metadata.csv").unlink()
    table = pa.Table.from_arrays([pa.array(["0.png"]), pa.array(["a"]), pa.array(["b"])], ["file_name", "text", "text"])
    pq.write_table(table, tmp_path / "metadata.parquet")
    with pytest.raises(Hand1000Error, match=r"metadata.parquet: several columns are called 'text'"):
        select(tmp_path, 1, 1)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("metadata.csv", b"file_name;text\n0.png;a\n", "no file_name among 'file_name;text'; name the image"),
        ("metadata.csv", "file_name,text\n".encode("utf-16"), "not CSV in UTF-8: .*; save it as UTF-8 with commas"),
        ("metadata.csv", b"file_name,text\n0.png,a,b\n", "not as many cells as the header has; quote texts"),
        ("metadata.jsonl", b'{"file_name"\n', "line 1: not JSON: .*; correct or remove the line"),
        ("metadata.jsonl", b'{"file_name": "0.png", "text": "\\ud800"}', "line 1: not JSON: half a surrogate pair"),
        ("metadata.jsonl", b"[1]\n", "line 1: not a JSON object; write one object with names per line"),
    ],
)
def test_a_malformed_metadata_file_is_one_line_with_a_remedy(tmp_path, name, data, message):
    write_images(tmp_path, range(3))
    (tmp_path / name).write_bytes(data)
    with pytest.raises(Hand1000Error, match=f"{name}: .*{message}") as caught:
        select(tmp_path, 1, 1)
    assert "\n" not in str(caught.value)


def test_half_a_surrogate_pair_beside_an_image_is_counted(tmp_path):
    write_images(tmp_path, range(3))
    (tmp_path / "0.json").write_text('{"text": "\\ud800"}')
    (tmp_path / "1.json").write_text('{"text": "\\ud83d\\udc4b"}')
    assert problems(tmp_path)[1] == {problem_kinds.BAD_LINE: ("0.json",), problem_kinds.BAD_PERSON: ("0.png: 0.json",)}


def test_a_number_that_is_too_large_for_a_box_is_refused():
    with pytest.raises(UnusableBoxError, match="too large"):
        parse_box([10**400, 0, 1, 1])


def test_a_gesture_that_is_not_known_is_named(tmp_path):
    write_images(tmp_path, range(4))
    lines = [{"file_name": f"{index}.png", "gesture": name} for index, name in enumerate(("four", "ok", "sixteen"))]
    jsonl(tmp_path / "metadata.jsonl", lines)
    assert problems(tmp_path) == (2, {problem_kinds.UNKNOWN_GESTURE: ("2.png: 'sixteen'",)})


def test_a_source_without_images_says_what_it_has_instead(tmp_path):
    with pytest.raises(Hand1000Error, match=r"no images of 'four'; it is empty; see docs/data.md"):
        select(tmp_path, 1, 1)
    (tmp_path / "a.svg").write_bytes(b"x")
    with pytest.raises(Hand1000Error, match=r"no images of 'four'; not read: file not understood: 1 \(a.svg\); remove"):
        select(tmp_path, 1, 1)


def test_a_pointer_of_git_lfs_is_called_one(tmp_path):
    write_images(tmp_path, range(3))
    (tmp_path / "3.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (skipped,) = check_source(open_dataset(tmp_path), "four").undecodable
    assert skipped.reason == "a Git LFS pointer instead of an image; run git lfs pull"


def write_malformed_exif(folder):
    write_images(folder, range(4))
    Image.new("RGB", (16, 16), "red").save(folder / "bad.webp", exif=b"Exif\0\0not a TIFF file")
    cut_short = b"Exif\0\0MM\0*\0\0\0\x08\0\x02\x01\x12\0\x03\0\0\0\x01\0\x01\0\0"
    Image.new("RGB", (16, 16), "blue").save(folder / "cut.jpg", exif=cut_short)


def test_a_malformed_exif_block_is_named_and_counted(tmp_path, caplog):
    write_malformed_exif(tmp_path / "source")
    expected = {problem_kinds.BESIDE_PIXELS: ("bad.webp: malformed EXIF block", "cut.jpg: malformed EXIF block")}
    assert problems(tmp_path / "source") == (6, expected)
    report = prepare_image_sets(
        select(tmp_path / "source", 3, 3), tmp_path / "out", data_settings(), resolution=8, seed=1
    )
    assert report.problem_counts() == {f"data/{problem_kinds.BESIDE_PIXELS}": 2} and not report.unusable
    caplog.clear()
    import_images(tmp_path / "source", tmp_path / "imported", "four", None)
    assert "fault beside the pixels of an image: 2 (bad.webp: malformed EXIF block; cut.jpg" in caplog.text


def test_an_intact_exif_block_is_no_fault(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for suffix in ("jpg", "png", "webp", "tiff"):
        Image.new("RGB", (16, 8), "red").save(tmp_path / f"x.{suffix}", exif=exif)
    assert problems(tmp_path) == (4, {})


def test_evaluate_names_what_hagrid_has_malformed(tmp_path, caplog):
    from tests.support.hagrid_source import write_hagrid

    source = write_hagrid(write_hagrid(tmp_path / "source", {"u": 3}), {"w": 1}, "test", labels=[])
    import_images(source, tmp_path / "imported", "four", None)
    assert "1 images are skipped: four/test-w-0.jpg: annotation: 1 bboxes but 0 labels" in caplog.text


def test_prompts_that_are_not_utf8_are_refused(tmp_path, capsys):
    write_images(tmp_path / "images", range(3))
    (tmp_path / "prompts.txt").write_bytes(b"a hand \xe9\n" * 3)
    arguments = [
        "evaluate",
        str(tmp_path / "images"),
        str(tmp_path / "images"),
        "--prompts",
        str(tmp_path / "prompts.txt"),
    ]
    assert main(arguments) == 2
    assert "prompts.txt: cannot be read: 'utf-8' codec" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line", [{"file_name": "0.png", "text": "a man"}, {"file_name": "four/0.png", "text": "a man"}]
)
def test_a_line_above_a_split_without_its_folder_is_counted(tmp_path, line):
    write_images(tmp_path / "train" / "four", range(3))
    write_images(tmp_path / "test" / "four", range(3, 5))
    jsonl(tmp_path / "metadata.jsonl", [line, {"file_name": "test/four/3.png", "text": "a woman"}])
    assert problems(tmp_path) == (5, {problem_kinds.NO_IMAGE: (f"metadata.jsonl: line 1: {line['file_name']}",)})
    jsonl(tmp_path / "metadata.jsonl", [line | {"user_id": "p"}])
    with pytest.raises(
        Hand1000Error, match=r"no such image, of 1 lines that name a person, while 3 images have no line"
    ):
        select(tmp_path, 1, 1)


def test_what_is_beside_archives_of_a_split_is_counted(tmp_path):
    for split, indices in (("train", range(3)), ("test", range(3, 5))):
        (tmp_path / "data").mkdir(exist_ok=True)
        with tarfile.open(tmp_path / "data" / f"{split}.tar", "w") as tar:
            for index in indices:
                add_member(tar, f"{index}.png", png(index))
    jsonl(tmp_path / "data" / "metadata.jsonl", [{"file_name": "0.png", "text": "a man"}])
    write_images(tmp_path, range(5, 6))
    (tmp_path / "labels.json").write_text("{}")
    expected = {
        problem_kinds.NO_IMAGE: ("data/metadata.jsonl: line 1: data/0.png",),
        problem_kinds.OTHER_FOLDER: ("5.png",),
        problem_kinds.UNKNOWN_FILE: ("labels.json",),
    }
    assert problems(tmp_path) == (5, expected)


def test_a_line_above_a_split_of_hagrid_without_its_folder_is_counted(tmp_path):
    from tests.support.hagrid_source import write_hagrid

    source = write_hagrid(tmp_path / "source", {"u": 3})
    write_hagrid(source, {"v": 1}, gesture="ok")
    names = ["train-u-0.jpg", "four/train-u-9.jpg", "ok/train-v-0.jpg"]
    jsonl(source / "metadata.jsonl", [{"file_name": name, "text": "a man"} for name in names])
    expected = ("metadata.jsonl: line 1: train-u-0.jpg", "metadata.jsonl: line 2: four/train-u-9.jpg")
    assert problems(source)[1] == {problem_kinds.NO_IMAGE: expected}


def test_a_person_on_both_sides_of_the_split_is_counted(tmp_path):
    write_images(tmp_path / "train", range(3))
    write_images(tmp_path / "test", range(3, 5))
    names = [*(f"train/{index}.png" for index in range(3)), *(f"test/{index}.png" for index in range(3, 5))]
    lines = [{"file_name": name, "user_id": "pqrps"[index]} for index, name in enumerate(names)]
    jsonl(tmp_path / "metadata.jsonl", lines)
    assert problems(tmp_path) == (5, {problem_kinds.IN_BOTH_SPLITS: ("test/3.png: p",)})


def test_evaluate_names_an_unreadable_member_of_an_archive(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for index in range(3):
            add_member(tar, f"{index}.png", png(index) if index else b"no image")
    with pytest.raises(Hand1000Error, match=rf"{tmp_path}/a.tar/0.png: not an image; repair or remove it"):
        import_images(tmp_path, tmp_path / "imported", "four", None)


def test_the_kinds_of_problems_are_names_of_metrics():
    """MLflow refuses a metric whose name has other characters, such as a comma, and the run with it."""
    assert all(re.fullmatch(r"[A-Za-z0-9 _./-]+", kind) for kind in problem_kinds.REMEDIES)
