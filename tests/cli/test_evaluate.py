"""`hand1000 evaluate` on folders as people have them, with the real extractor, MediaPipe and classifier."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from hand1000.cli import main as cli
from hand1000.gestures import PHRASES
from hand1000.storage.digests import digest_file
from tests.support.rendered_hands import render_hand

PALMS = 3


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images without metadata, some larger, some not square: `real` and `fake` palms."""
    folder = tmp_path_factory.mktemp("plain")
    for part, numbers in (("real", range(PALMS)), ("fake", range(PALMS, 2 * PALMS))):
        (folder / part).mkdir()
        for number in numbers:
            image = Image.fromarray(render_hand("palm", number).pixels)
            if number % 2:
                wide = Image.new("RGB", (240, 192), image.getpixel((0, 0)))
                wide.paste(image.resize((192, 192)), (24, 0))
                image = wide
            image.save(folder / part / f"{number}.jpg", quality=95)
    return folder


def read_metrics(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if "note:" not in line)


def test_plain_folders_of_mixed_sizes_are_measured(folders: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "metrics.json"
    command = ["evaluate", str(folders / "real"), str(folders / "fake"), "--gesture", "palm", "--out", str(out)]
    assert cli.main([*command, "--train", str(folders / "real"), "--paper"]) == 0
    lines = read_metrics(capsys)
    assert float(lines["paper_fid"]) == pytest.approx(float(lines["fid"]), rel=0.01) and "paper_kid" in lines
    assert float(lines["fid"]) > 0 and lines["n_fake"] == lines["n_real"] == str(PALMS)
    assert float(lines["detection_rate"]) == 1 and float(lines["gesture_accuracy"]) > 0.5
    assert lines["implausible_hand_rate"] == "–"  # Too few real hands to know their spread.
    kept = json.loads(out.read_text())
    assert len(kept["images"]) == PALMS and kept["memorization_rate"] == 0


def test_a_second_evaluation_recalls_the_features(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    folders, root = [str(folders / name) for name in ("real", "fake")], tmp_path / "root"
    command = ["evaluate", *folders, "--gesture", "palm", "--root", str(root)]
    outs = [tmp_path / f"{number}.json" for number in range(2)]
    assert cli.main([*command, "--out", str(outs[0])]) == 0
    monkeypatch.delattr("hand1000.evaluation.features.iter_detections")
    assert cli.main([*command, "--out", str(outs[1])]) == 0
    assert outs[0].read_bytes() == outs[1].read_bytes()
    kept = "".join(path.read_text() for path in (root / "caches").rglob("*.json"))
    assert all(digest_file(path) in kept for folder in folders for path in Path(folder).iterdir())


def test_prompts_give_the_requested_gestures(folders: Path, tmp_path: Path, capsys) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(f"a hand, {PHRASES[gesture]}" for gesture in ("palm", "palm", "call")) + "\n")
    assert cli.main(["evaluate", str(folders / "real"), str(folders / "fake"), "--prompts", str(prompts)]) == 0
    lines = read_metrics(capsys)
    assert lines["gesture"] == "call,palm" and lines["n_fake.call"] == "1" and lines["gesture_accuracy.call"] == "0"
    assert lines["real_gesture_accuracy"] == "–" and float(lines["intra_prompt_distance"]) > 0
    prompts.write_text("a hand\n")
    assert cli.main(["evaluate", str(folders / "real"), str(folders / "fake"), "--prompts", str(prompts)]) == 2
    assert "3 images, but 1 prompts" in capsys.readouterr().err


def test_a_folder_that_cannot_be_evaluated_is_one_line(folders: Path, tmp_path: Path, capsys) -> None:
    real = str(folders / "real")
    (tmp_path / "empty").mkdir()
    (tmp_path / "one").mkdir()
    shutil.copy(folders / "real/0.jpg", tmp_path / "one")
    (tmp_path / "broken").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "broken" / name).write_text("no image")
    for fake, message in (
        ("empty", "empty: no images of 'palm'; it is empty"),
        ("one", "one: 1 images"),
        ("nowhere", "nowhere: no such folder"),
        ("broken", "a.png"),
    ):
        assert cli.main(["evaluate", real, str(tmp_path / fake), "--gesture", "palm"]) == 2
        error = capsys.readouterr().err
        assert error.splitlines()[-1].startswith("hand1000: error:") and message in error, error
    assert cli.main(["evaluate", real, real]) == 2
    assert "give --gesture or --prompts" in capsys.readouterr().err


def test_images_without_a_hand_have_no_hand_metrics(folders: Path, tmp_path: Path, capsys) -> None:
    for number in range(PALMS):
        Image.new("RGB", (64, 64), (90, 120, 40 * number)).save(tmp_path / f"{number}.png")
    assert cli.main(["evaluate", str(folders / "real"), str(tmp_path), "--gesture", "palm"]) == 0
    lines = read_metrics(capsys)
    assert lines["detection_rate"] == lines["gesture_accuracy"] == "0" and lines["fid_h"] == lines["hand_conf"] == "–"
