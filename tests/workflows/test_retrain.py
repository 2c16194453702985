"""Scheduled retraining on data that stays the same, grows and drifts."""

import datetime
import json
import shutil
from pathlib import Path

import pytest
import yaml

from hand1000.config.gates import GateSettings
from hand1000.config.settings import Settings
from hand1000.evaluation.gates import evaluate_gates
from hand1000.registry.champion import CHAMPION, find_champion
from hand1000.registry.connection import connect
from hand1000.registry.tracking import RUN_KEY
from tests.support.short_demo import ROOT, inputs_file

GATES = GateSettings(min_gesture_accuracy=0, min_detection_rate=0, max_kid_h_increase=100)


def run_retraining(folder: Path, gates: GateSettings = GATES, **changes: object):
    """Return the result of the workflow on the images in `folder/images`."""
    from workflows.retrain import retrain

    inputs = yaml.safe_load(inputs_file(folder).read_text())
    inputs |= {"data": str(folder / "images"), "root": str(folder / "root"), **changes}
    inputs["settings"] = Settings.model_validate(inputs["settings"])
    inputs["base_model"] = str(ROOT / inputs["base_model"])
    return retrain(**inputs, gates=gates, kickoff=datetime.datetime(2026, 11, 2, 3, tzinfo=datetime.UTC))


def render(folder: Path, train: int) -> None:
    from hand1000.data.render.dataset import render_dataset

    render_dataset(folder, {"four": {"train": train, "test": 4}}, seed=1000, size=64)


def test_retraining_trains_only_on_changed_data(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    render(tmp_path / "images", 8)
    first = run_retraining(tmp_path)
    assert first.outcome.startswith("passed: gesture accuracy") and first.model_uri.endswith("-candidates/1")
    page = (Path(first.report.path) / "retraining.html").read_text()
    assert "no model: this is the first one" in page and "there was no model before" in page
    capsys.readouterr()

    again = run_retraining(tmp_path)
    output = capsys.readouterr()
    assert again.outcome == f"unchanged: data, settings and base model are those of {first.model_uri}"
    assert again.model_uri == first.model_uri
    assert "four, 2026-11-02 03:00: nothing changed since models:/hand1000-four-candidates/1" in output.out
    assert "train_unet" not in output.err and ": started" not in output.err

    shutil.rmtree(tmp_path / "images")
    render(tmp_path / "images", 12)
    strict = GATES.model_copy(update={"min_gesture_accuracy": 1.0})
    grown = run_retraining(tmp_path, strict, images=12)
    assert "the data changed" in capsys.readouterr().out
    assert grown.model_uri.endswith("-candidates/2") and grown.outcome.startswith(
        "failed: gesture accuracy 0, at least 1"
    )
    drift = json.loads((Path(grown.report.path) / "drift.json").read_text())
    assert drift["images"] == [8, 12] and drift["features"][0]["gesture"] == "four"
    assert 0 < drift["features"][0]["mean"] < 1 and 0 < drift["vocabulary"] < 0.5
    tracking = connect(tmp_path / "root")
    newest = find_champion(tracking, ["four"])
    assert newest is not None and newest.version == 2 and newest.tags["hand1000.gates"] == grown.outcome
    assert newest.tags["hand1000.champion"] == first.model_uri
    (run,) = tracking.client.search_runs(["1"], f"tags.`{RUN_KEY}` = '{newest.tags[RUN_KEY]}'")
    logged = {file.path for file in tracking.client.list_artifacts(run.info.run_id)}
    assert {"report.html", "retraining.html"} <= logged and run.info.status == "FINISHED"

    # A reviewer's choice has priority over the newest candidate.
    tracking.client.copy_model_version(first.model_uri, "hand1000-four")
    tracking.client.set_registered_model_alias("hand1000-four", CHAMPION, "1")
    chosen = find_champion(tracking, ["four"])
    assert chosen is not None and chosen.uri == "models:/hand1000-four/1"
    assert chosen.tags["hand1000.dataset"] != newest.tags["hand1000.dataset"]


def test_gate_fails_for_a_metric_that_was_not_measured() -> None:
    gates = GateSettings(min_gesture_accuracy=0.5, min_detection_rate=0.8, max_kid_h_increase=0.1)
    good = {"gesture accuracy": 0.5, "detection rate": 0.9, "KID-H": 0.6}
    assert all(gate.passed for gate in evaluate_gates(good, {"KID-H": 0.5}, gates))
    assert [gate.passed for gate in evaluate_gates(good, {"KID-H": 0.49}, gates)] == [True, True, False]
    assert [gate.name for gate in evaluate_gates(good, None, gates)] == ["gesture accuracy", "detection rate"]
    without = {"detection rate": 0.79}
    assert [str(gate) for gate in evaluate_gates(without, None, gates) if not gate.passed] == [
        "gesture accuracy not measured, at least 0.5",
        "detection rate 0.79, at least 0.8",
    ]


def test_drift_measures_hands_words_and_boxes(tmp_path: Path) -> None:
    """The changes are known: hands move by one standard deviation, half of the words are new, boxes double."""
    import numpy as np
    from PIL import Image

    from hand1000.data.imageset import ImageRecord, write_metadata
    from hand1000.evaluation.drift import measure_drift
    from hand1000.hands.stage1 import GestureFeature

    def feature(step: float) -> GestureFeature:
        mean, std = np.full(63, step, np.float32), np.ones(63, np.float32)
        return GestureFeature(mean, std, gesture="four", kind="normalized", images=3, found=3, images_without_hand=())

    def images(folder: Path, word: str, size: float) -> Path:
        folder.mkdir()
        records = []
        for index in range(3):
            Image.new("RGB", (8, 8)).save(folder / f"{index}.png")
            records.append(
                ImageRecord(
                    file_name=f"{index}.png",
                    text=f"{word} hand",
                    caption=f"{word} hand",
                    captioner="a",
                    gesture="four",
                    user_id=str(index),
                    bbox=(0.1, 0.1, size, size / 2),
                    source="0" * 64,
                )
            )
        write_metadata(folder, records)
        return folder

    red, blue = images(tmp_path / "a", "red", 0.2), images(tmp_path / "b", "blue", 0.4)
    alike = measure_drift(red, red, [feature(0)], [feature(0)])
    assert alike.vocabulary == 0 and alike.new_words == () and alike.features[0].largest == 0
    assert alike.box_distance is not None and alike.box_distance[0] == 0
    apart = measure_drift(red, blue, [feature(0)], [feature(1)])
    assert apart.features[0].mean == pytest.approx(1) and apart.box_distance is not None
    assert apart.vocabulary == pytest.approx(0.5**0.5) and (apart.new_words, apart.lost_words) == (("blue",), ("red",))
    assert apart.box_sides == pytest.approx((0.2, 0.4)) and apart.box_distance[0] == 1
