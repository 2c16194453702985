"""`hand1000 evaluate` on folders as people have them, with the real extractor, MediaPipe and classifier."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hand1000.cli import main as cli
from hand1000.evaluation.anatomy import MIN_REFERENCE_HANDS, compute_hand_shapes, fit_anatomy
from hand1000.evaluation.neighbors import intra_prompt_distance, memorization_rate
from hand1000.gestures import PHRASES
from tests.support.rendered_hands import render_hand

PALMS = 3


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plain pictures, some larger, some not square: `real` and `fake` palms."""
    folder = tmp_path_factory.mktemp("plain")
    for part, numbers in (("real", range(PALMS)), ("fake", range(PALMS, 2 * PALMS))):
        (folder / part).mkdir()
        for number in numbers:
            picture = Image.fromarray(render_hand("palm", number).pixels)
            if number % 2:
                wide = Image.new("RGB", (240, 192), picture.getpixel((0, 0)))
                wide.paste(picture.resize((192, 192)), (24, 0))
                picture = wide
            picture.save(folder / part / f"{number}.jpg", quality=95)
    return folder


def shown(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if "note:" not in line)


def test_plain_folders_of_mixed_sizes_are_measured(folders: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "metrics.json"
    command = ["evaluate", str(folders / "real"), str(folders / "fake"), "--gesture", "palm", "--out", str(out)]
    assert cli.main([*command, "--train", str(folders / "real"), "--paper"]) == 0
    lines = shown(capsys)
    assert float(lines["paper_fid"]) == pytest.approx(float(lines["fid"]), rel=0.01) and "paper_kid" in lines
    assert float(lines["fid"]) > 0 and lines["n_fake"] == lines["n_real"] == str(PALMS)
    assert float(lines["detection_rate"]) == 1 and float(lines["gesture_accuracy"]) > 0.5
    assert lines["implausible_hand_rate"] == "–"  # Too few real hands to know their spread.
    kept = json.loads(out.read_text())
    assert len(kept["images"]) == PALMS and kept["memorization_rate"] == 0


def test_prompts_say_what_each_was_to_show(folders: Path, tmp_path: Path, capsys) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(f"a hand, {PHRASES[one]}" for one in ("palm", "palm", "call")) + "\n")
    assert cli.main(["evaluate", str(folders / "real"), str(folders / "fake"), "--prompts", str(prompts)]) == 0
    lines = shown(capsys)
    assert lines["gesture"] == "call,palm" and lines["n_fake.call"] == "1" and lines["gesture_accuracy.call"] == "0"
    assert lines["real_gesture_accuracy"] == "–" and float(lines["intra_prompt_distance"]) > 0
    prompts.write_text("a hand\n")
    assert cli.main(["evaluate", str(folders / "real"), str(folders / "fake"), "--prompts", str(prompts)]) == 2
    assert "3 images, but 1 prompts" in capsys.readouterr().err


def test_what_cannot_be_measured_is_one_line(folders: Path, tmp_path: Path, capsys) -> None:
    real = str(folders / "real")
    (tmp_path / "empty").mkdir()
    (tmp_path / "one").mkdir()
    shutil.copy(folders / "real/0.jpg", tmp_path / "one")
    (tmp_path / "broken").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "broken" / name).write_text("no picture")
    for fake, said in (
        ("empty", "empty: 0 images"),
        ("one", "one: 1 images"),
        ("nowhere", "nowhere: no such folder"),
        ("broken", "a.png"),
    ):
        assert cli.main(["evaluate", real, str(tmp_path / fake), "--gesture", "palm"]) == 2
        error = capsys.readouterr().err
        assert error.splitlines()[-1].startswith("hand1000: error:") and said in error, error
    assert cli.main(["evaluate", real, real]) == 2
    assert "give --gesture or --prompts" in capsys.readouterr().err


def test_pictures_without_a_hand_leave_their_measures_open(folders: Path, tmp_path: Path, capsys) -> None:
    for number in range(PALMS):
        Image.new("RGB", (64, 64), (90, 120, 40 * number)).save(tmp_path / f"{number}.png")
    assert cli.main(["evaluate", str(folders / "real"), str(tmp_path), "--gesture", "palm"]) == 0
    lines = shown(capsys)
    assert lines["detection_rate"] == lines["gesture_accuracy"] == "0" and lines["fid_h"] == lines["hand_conf"] == "–"


def hands(count: int, seed: int) -> np.ndarray:
    """Hands of one build that bend and turn as they like, (count, 21, 3)."""
    draws = np.random.default_rng(seed)
    found = np.zeros((count, 21, 3))
    for finger in range(5):
        start = np.array([0.15 * (finger - 2), 0.5, 0.0])
        for joint in range(4):
            bend = draws.normal(0.1, 0.05, (count, 3)) * [1, 0, 1]
            step = start if joint == 0 else np.array([0.0, 0.15, 0.0])
            before = found[:, 0] if joint == 0 else found[:, 4 * finger + joint]
            found[:, 4 * finger + joint + 1] = before + step * draws.normal(1, 0.03, (count, 1)) + 0.05 * bend
    return found


def test_hands_that_cannot_be_are_told_from_those_that_can() -> None:
    real = hands(200, 0)
    anatomy = fit_anatomy(real)
    assert anatomy is not None and anatomy.implausible_rate(hands(200, 1)) < 0.05
    # Where it lies, how large it is and how it is turned make no difference.
    turned = real @ np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0] * 3 + 7
    assert np.allclose(compute_hand_shapes(turned), compute_hand_shapes(real))
    long = hands(200, 3)
    long[:, 8] += 3 * (long[:, 8] - long[:, 7])  # The index finger's last bone, four times as long.
    swapped = hands(200, 4)
    swapped[:, [8, 20]] = swapped[:, [20, 8]]  # Its tip at the little finger's place.
    assert anatomy.implausible_rate(long) > 0.95 and anatomy.implausible_rate(swapped) > 0.95
    assert fit_anatomy(real[: MIN_REFERENCE_HANDS - 1]) is None


def test_diversity_is_within_a_prompt() -> None:
    features = np.array([[0.0], [3.0], [10.0], [10.0]])
    assert intra_prompt_distance(features, ["a", "a", "b", "b"]) == pytest.approx(1.5)
    assert intra_prompt_distance(features, list("abcd")) is None


def test_a_copy_of_the_training_images_is_seen() -> None:
    draws = np.random.default_rng(0)
    train, real, fresh = (draws.normal(size=(300, 8)) for _ in range(3))
    assert memorization_rate(train + 1e-6, real, train) == 1
    assert memorization_rate(fresh, real, train) < 0.15
