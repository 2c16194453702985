"""The check of a source, as a function and as a command."""

from hand1000.cli.main import main
from hand1000.data.check import check_source, list_gestures
from hand1000.data.check_report import report_lines
from hand1000.storage.sources import open_source
from tests.support.hagrid_source import write_hagrid
from tests.support.layouts import BOX, LAYOUTS, jsonl


def test_the_check_of_a_source_names_what_is_wrong(tmp_path):
    source = write_hagrid(tmp_path / "source", {f"u{i}": 2 for i in range(3)}, "train", caption="a hand")
    write_hagrid(source, {"w": 1}, "test", gesture="ok", bboxes=[], labels=[])
    (source / "four" / "train-u0-0.jpg").write_bytes(b"no image")
    assert list_gestures(open_source(source)) == ["four", "ok"]
    done: list[int] = []
    four, ok = (
        check_source(open_source(source), gesture, lambda images, _: done.append(images)) for gesture in ("four", "ok")
    )
    assert (four.images, four.people, four.labelled, four.captioned, four.has_split) == (
        6,
        3,
        6,
        {"annotations": 6},
        False,
    )
    assert [(skipped.file, skipped.reason) for skipped in four.undecodable] == [("four/train-u0-0.jpg", "not an image")]
    assert (ok.images, ok.labelled, ok.captioned) == (1, 0, {}) and done[0] == 6
    lines = list(report_lines([four, ok]))
    assert lines[1].split() == ["four", "6", "6", "annotations", "6", "3", "no", "4", "1", "1"]
    assert lines[-1] == "problem: unusable image: 1 (four/train-u0-0.jpg: not an image); repair or remove them"


def test_the_command_checks_a_folder_and_sets_its_exit_status(tmp_path, capsys):
    source = write_hagrid(tmp_path / "source", {f"u{i}": 2 for i in range(3)}, "train")
    assert main(["data", "check", str(source)]) == 0
    assert "four" in capsys.readouterr().out
    (source / "four" / "train-u0-0.jpg").write_bytes(b"no image")
    assert main(["data", "check", str(source), "--gesture", "four"]) == 2
    output = capsys.readouterr()
    assert "unusable image: 1 (four/train-u0-0.jpg: not an image)" in output.out
    assert "1 of 6 images are unusable, more than data.max_unusable = 0.1" in output.err
    assert main(["data", "check", str(tmp_path / "nowhere")]) == 2
    assert "nowhere: no such folder" in capsys.readouterr().err


def test_a_source_with_a_split_is_checked_on_both_sides(tmp_path, capsys):
    """The progress, whose total is unknown, is reported several times."""
    LAYOUTS["train/ and test/ with a metadata file each"][0](tmp_path)
    assert main(["data", "check", str(tmp_path), "--gesture", "four"]) == 0
    output = capsys.readouterr()
    assert output.out.splitlines()[1].split() == ["four", "8", "8", "metadata.jsonl", "8", "4", "yes", "0", "0", "0"]
    assert "four: 6/?" in output.err


def test_the_page_shows_counts_problems_and_thumbnails(tmp_path, capsys):
    LAYOUTS["kohya folders"][0](tmp_path / "source")
    rows = [{"file_name": "10_four/0.png", "bbox": [1, 1, 20, 20]}, {"file_name": "10_four/1.png", "bbox": BOX}]
    jsonl(tmp_path / "source" / "metadata.jsonl", [*rows, {"file_name": "<b>.png"}])
    page = tmp_path / "check.html"
    assert main(["data", "check", str(tmp_path / "source"), "--gesture", "four", "--html", str(page)]) == 0
    output, text = capsys.readouterr().out, page.read_text()
    assert "8 .caption files" in output.splitlines()[1] and f"page: {page}" in output
    assert "problem: box not usable: 1 (10_four/0.png: metadata.jsonl: line 1: box 1:" in output
    assert "problem: repeats of a folder not used: 1 (10_four: 10)" in output
    assert text.count("data:image/png;base64,") == 8 and "<script" not in text and 'src="http' not in text
    assert "&lt;b&gt;.png" in text and "<b>" not in text and "box not usable" in text
    assert main(["data", "check", str(tmp_path / "source"), "--gesture", "four", "--bbox-format", "pixels"]) == 0
    assert "box not usable" in capsys.readouterr().out  # The other line has a relative box.


def test_each_gesture_is_a_share_of_its_own_images(tmp_path, capsys):
    """Annotations without a usable person are a share of the annotations, not of the images that are left."""
    source = write_hagrid(tmp_path / "source", {f"u{i}": 9 for i in range(10)}, "train")
    write_hagrid(source, {"x": 9}, "val", user_id=None)
    assert main(["data", "check", str(source)]) == 0  # 9 of 99 are at most a tenth, 9 of 90 would be, too; 10 are not.
    write_hagrid(source, {"y": 1}, "val", user_id=None)
    assert main(["data", "check", str(source)]) == 0
    write_hagrid(source, {"z": 1}, "val", user_id=None)
    assert main(["data", "check", str(source)]) == 2
    assert "four: 11 of 101 images are unusable, more than data.max_unusable = 0.1" in capsys.readouterr().err
