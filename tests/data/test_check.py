"""The check of a source, as a function and as a command."""

from hand1000.cli.main import main
from hand1000.data.check import check_source, list_gestures, report_lines
from hand1000.storage.sources import open_source
from tests.support.hagrid_source import write_hagrid


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
