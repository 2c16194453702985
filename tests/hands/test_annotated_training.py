"""Training on the landmarks that a data set in HaGRID's layout annotates, as `hand1000 classifier train` does."""

import json
from pathlib import Path

import numpy as np
import pytest

from hand1000.cli import main as cli
from hand1000.core.errors import Hand1000Error
from hand1000.data.annotated_hands import read_annotated_hands
from hand1000.hands.annotated_training import train_on_annotations
from hand1000.hands.classifier import load_classifier
from hand1000.hands.sampled_hands import sample_hands
from hand1000.storage.sources import open_source
from tests.support.annotated_hands import GESTURES, write_annotated_hands


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_annotated_hands(tmp_path_factory.mktemp("annotated"))


def test_a_folder_becomes_a_classifier_that_the_settings_take(folder: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "classifier"
    command = ["classifier", "train", "--data", str(folder), "--out", str(out), "--steps", "300"]
    assert cli.main(command) == 0
    printed = capsys.readouterr().out
    assert f"evaluation.gesture_classifier: {out}" in printed and "1: hands have no 21 landmarks" in printed
    classifier = load_classifier(str(out))
    assert classifier.classes == (*GESTURES, "no_gesture") and classifier.config.dimensions == 2
    report = json.loads((out / "training.json").read_text())
    assert report["test"]["accuracy"] > 0.55 and report["command"].startswith("hand1000 classifier train")
    rng = np.random.default_rng(9)
    for gesture in GESTURES:
        hands = sample_hands(gesture, 50, rng)
        named = classifier.predict(hands, np.ones(50, bool))[0]
        # The depth, which was not learned, changes nothing.
        assert named == classifier.predict(hands * np.float32([1, 1, 0]), np.ones(50, bool))[0]
        assert named.count(gesture) > 20
    assert cli.main(command) == 2 and "exists already" in capsys.readouterr().err


def test_the_same_folder_gives_the_same_bits(folder: Path, tmp_path: Path) -> None:
    digests = set()
    for name in ("first", "second"):
        trained = train_on_annotations(read_annotated_hands(open_source(folder)), seed=1, steps=20)
        trained.classifier.save_pretrained(tmp_path / name)
        digests.add(load_classifier(str(tmp_path / name)).sha256)
    assert len(digests) == 1


def test_points_are_in_units_of_the_longer_side(folder: Path) -> None:
    hands = read_annotated_hands(open_source(folder))
    assert hands.points.shape == (len(hands), 21, 2) and set(hands.labels) == {*GESTURES, "no_gesture"}
    # The images are twice as high as wide, as in a portrait.
    assert hands.points[..., 0].max() <= 0.5 < hands.points[..., 1].max() <= 1
    test, held_out = hands.held_out(0.1), hands.held_out(0.2)
    assert 0 < test.sum() < held_out.sum() < len(hands) / 2 and not (test & ~held_out).any()
    assert {side for side, label in zip(hands.sides, hands.labels, strict=True) if label == "like"} >= {-1, 1}


def test_too_few_hands_or_people_are_one_line(tmp_path: Path) -> None:
    write_annotated_hands(tmp_path / "few", per_gesture=5)
    few = read_annotated_hands(open_source(tmp_path / "few"))
    with pytest.raises(Hand1000Error, match="at least 20 of each of two gestures"):
        train_on_annotations(few, seed=0, steps=1)
    write_annotated_hands(tmp_path / "alone", people=1)
    alone = read_annotated_hands(open_source(tmp_path / "alone"))
    with pytest.raises(Hand1000Error, match="1 people|at least 20"):
        train_on_annotations(alone, seed=0, steps=1)
    (tmp_path / "none").mkdir()
    with pytest.raises(Hand1000Error, match="no annotations in HaGRID's layout"):
        read_annotated_hands(open_source(tmp_path / "none"))


@pytest.mark.parametrize(
    "damage", ["[]", '{"x": 1}', '{"a": {"labels": [1]}}', "{", '{"like-0": {"labels": ["like"]}}']
)
def test_damaged_annotations_are_skipped(damage: str, tmp_path: Path) -> None:
    write_annotated_hands(tmp_path, per_gesture=2)
    for file in (tmp_path / "annotations" / "train").glob("*.json"):
        file.write_text(damage)
    with pytest.raises(Hand1000Error, match="no hand has 21 annotated landmarks"):
        read_annotated_hands(open_source(tmp_path))
