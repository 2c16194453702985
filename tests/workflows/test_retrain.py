"""Scheduled retraining on data that stays the same, grows and drifts."""

import datetime
import json
import shutil
from pathlib import Path

import yaml

from hand1000.config.gates import GateSettings
from hand1000.config.settings import Settings
from hand1000.registry.connection import connect
from hand1000.registry.versions import CHAMPION, RUN_KEY, find_champion, get_version
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
    tracking = connect(tmp_path / "root")
    tracking.client.copy_model_version(first.model_uri, "hand1000-four")
    tracking.client.set_registered_model_alias("hand1000-four", CHAMPION, "1")
    champion = find_champion(tracking, ["four"])
    assert champion is not None and champion.uri == "models:/hand1000-four/1"
    capsys.readouterr()

    again = run_retraining(tmp_path)
    output = capsys.readouterr()
    assert again.outcome == f"unchanged: data, settings and base model are those of {champion.uri}"
    assert again.model_uri == champion.uri
    assert "four, 2026-11-02 03:00: nothing changed since models:/hand1000-four/1" in output.out
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
    newest = get_version(tracking, grown.model_uri)
    assert newest.tags["hand1000.gates"] == grown.outcome and newest.tags["hand1000.champion"] == champion.uri
    assert newest.tags["hand1000.dataset"] != champion.tags["hand1000.dataset"]
    (run,) = tracking.client.search_runs(["1"], f"tags.`{RUN_KEY}` = '{newest.tags[RUN_KEY]}'")
    logged = {file.path for file in tracking.client.list_artifacts(run.info.run_id)}
    assert {"report.html", "retraining.html"} <= logged and run.info.status == "FINISHED"
    # A candidate is no champion, however new it is.
    assert find_champion(tracking, ["four"]) == champion
