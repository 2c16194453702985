"""Scheduled retraining on data that stays the same, grows and drifts, with a champion and a candidate that fails."""

import datetime
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from hand1000.config.settings import Settings
from hand1000.core.errors import Hand1000Error
from hand1000.registry.connection import connect
from hand1000.registry.load import find_version
from hand1000.registry.processes import HEARTBEAT, PROCESS
from hand1000.registry.recorder import RunRecorder
from hand1000.registry.review import list_candidates, promote, reject
from hand1000.registry.tracking import PARENT
from hand1000.registry.versions import RUN_KEY, find_champion
from tasks.context import RunContext
from tests.support.short_demo import ROOT, inputs_file

LENIENT = {
    "gates.gesture_accuracy": {"threshold": 0, "max_loss": 0.05},
    "gates.detection_rate": {"threshold": 0, "max_loss": 0.05},
    "gates.kid_h": {"threshold": None, "max_loss": 0.1},
    "gates.diversity": {"threshold": 0, "max_loss": 0.9},
    "gates.memorization_rate": {"threshold": 1, "max_loss": 0.9},
    "gates.general_detection_rate": {"max_loss_to_base": 1, "max_loss": 1},
    "gates.general_kid": {"threshold": 1000, "max_loss": 1000},
}
"""Bounds that the short demo passes, which learns nothing."""


def run_retraining(folder: Path, changes: dict[str, Any], **inputs_changes: object):
    """Return the result of the workflow on the images in `folder/images`, with changed settings."""
    from workflows.retrain import retrain

    inputs = yaml.safe_load(inputs_file(folder).read_text())
    inputs |= {"data": str(folder / "images"), "root": str(folder / "root"), **inputs_changes}
    inputs["settings"] = Settings.model_validate(inputs["settings"]).with_overrides(LENIENT | changes)
    inputs["base_model"] = str(ROOT / inputs["base_model"])
    return retrain(**inputs, kickoff=datetime.datetime(2026, 11, 2, 3, tzinfo=datetime.UTC))


def render(folder: Path, train: int) -> None:
    from hand1000.data.render.dataset import render_dataset

    render_dataset(folder, {"four": {"train": train, "test": 4}}, seed=1000, size=64)


def read_newest(folder: Path, name: str) -> Any:
    """Read the JSON file that was written last of those with this name in an artifact of `folder/root`."""
    paths = (folder / "root" / "artifacts").glob(f"*/*/{name}")
    return json.loads(max(paths, key=lambda path: path.stat().st_mtime).read_text())


def test_retraining_trains_only_on_changed_data(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    render(tmp_path / "images", 8)
    first = run_retraining(tmp_path, {})
    assert first.outcome.startswith("passed: all 7 gates, without a champion")
    assert first.model_uri == "models:/hand1000-four-candidates/1"
    gates = read_newest(tmp_path, "gates.json")
    assert gates["champion"] == "" and {result["name"] for result in gates["results"]} == {
        "gesture accuracy", "detection rate", "diversity", "memorization rate", "general detection rate", "general KID",
        "other-gesture accuracy",
    }  # fmt: skip
    assert any("too few hands" in note for note in gates["notes"])
    artifacts = tmp_path / "root" / "artifacts"
    assert not list(artifacts.glob("evaluate/*/*champion*")) and not list(artifacts.glob("register/*/drift.json"))
    assert not (artifacts / "generate_champion").exists()

    # Without a champion, a candidate that was judged is not trained again, and it is no yardstick.
    tracking = connect(tmp_path / "root")
    capsys.readouterr()
    again = run_retraining(tmp_path, {"gates.on_failed_gate": "fail"})
    output = capsys.readouterr()
    assert again.outcome.startswith(f"unchanged: data, settings and base model are those of {first.model_uri}, ")
    assert again.outcome.endswith("which is pending and passed its gates") and again.model_uri == first.model_uri
    assert f"four, 2026-11-02 03:00: nothing changed since {first.model_uri}" in output.out
    assert "train_unet" not in output.err and ": started" not in output.err

    promote(tracking, first.model_uri, who="Ann")
    champion = find_champion(tracking, ["four"])
    assert champion is not None and champion.uri == "models:/hand1000-four/1"

    shutil.rmtree(tmp_path / "images")
    render(tmp_path / "images", 12)
    strict = {"gates.gesture_accuracy.threshold": 1.0, "gates.on_failed_gate": "fail"}
    with pytest.raises(Hand1000Error) as failed:
        run_retraining(tmp_path, strict, images=12)
    output = capsys.readouterr()
    assert "the data changed since models:/hand1000-four/1" in output.out
    assert "models:/hand1000-four-candidates/2: failed: gesture accuracy 0, at least 1; " in str(failed.value)
    assert output.err.count("generate_champion shard 1 of 1: done") == 1
    drift = read_newest(tmp_path, "drift.json")
    assert drift["images"] == [8, 12] and drift["features"][0]["gesture"] == "four"
    assert 0 < drift["features"][0]["mean"] < 1 and 0 < drift["vocabulary"] < 0.5
    # The champion was evaluated on the candidate's prompts and seeds.
    former, tuned = (read_newest(tmp_path, f"{name}.json") for name in ("champion", "tuned"))
    assert [image["file_name"] for image in former["images"]] == [image["file_name"] for image in tuned["images"]]
    assert former["fid"] != tuned["fid"] and read_newest(tmp_path, "general_champion.json")["n"] == 4
    rows = {row["name"]: row for row in read_newest(tmp_path, "paired.json")["metrics"]}
    assert sorted(rows["detection rate"]["differences"]) == ["base", "champion"]
    gates = read_newest(tmp_path, "gates.json")
    assert [gate["name"] for gate in gates["results"] if not gate["passed"]] == ["gesture accuracy"]
    assert any(gate["champion"] is not None and "below the champion's" in gate["rule"] for gate in gates["results"])
    newest = find_version("models:/hand1000-four-candidates/2", registry=tracking)
    assert newest.tags["hand1000.verdict"] == "failed" and newest.tags["hand1000.champion"] == champion.uri
    assert newest.tags["hand1000.gates"].startswith("failed: gesture accuracy 0, at least 1")
    assert newest.tags["hand1000.dataset"] != champion.tags["hand1000.dataset"]
    (mlflow_run,) = tracking.client.search_runs(["1"], f"tags.`{RUN_KEY}` = '{newest.tags[RUN_KEY]}'")
    logged = {file.path for file in tracking.client.list_artifacts(mlflow_run.info.run_id)}
    assert {"report.html", "gates.json"} <= logged and mlflow_run.info.status == "FAILED"

    # A candidate that failed is not judged again, and does not become the champion.
    reject(tracking, newest.uri, who="Ann", why="It draws no hands.")
    same = run_retraining(tmp_path, strict, images=12)
    rejected = "of models:/hand1000-four-candidates/2, which is rejected and failed its gates"
    assert same.outcome.endswith(rejected)
    assert find_champion(tracking, ["four"]) == champion


def test_unfinished_registration_is_finished_first(tmp_path: Path, capsys, monkeypatch) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    render(tmp_path / "images", 8)
    log_artifact = MlflowClient.log_artifact

    def lose_images(client: MlflowClient, run_id: str, path: str, folder: str | None = None) -> None:
        if folder == "images":
            raise MlflowException("API request to http://mlflow failed with exception connection reset")
        log_artifact(client, run_id, path, folder)

    with monkeypatch.context() as lost:
        lost.setattr(MlflowClient, "log_artifact", lose_images)
        with pytest.raises(Hand1000Error, match="connection reset"):
            run_retraining(tmp_path, {})
    tracking = connect(tmp_path / "root")
    (candidate,) = list_candidates(tracking, "four")
    assert candidate.verdict and tracking.client.get_run(candidate.run_id).info.status == "RUNNING"

    capsys.readouterr()
    finished = run_retraining(tmp_path, {})
    output = capsys.readouterr()
    assert f"the registration of {candidate.version.uri} is not finished" in output.out
    assert finished.outcome == candidate.gates and finished.model_uri == candidate.version.uri
    assert ": started" not in output.err and len(list_candidates(tracking, "four")) == 1
    parent = tracking.client.get_run(candidate.run_id)
    assert parent.info.status == "FINISHED" and "tuned/FID" in parent.data.metrics
    assert tracking.client.list_artifacts(candidate.run_id, "images")

    # What another process left: a record that waits, a stage seen long ago, and a run that was about to be closed.
    (run_key,) = {candidate.version.tags[RUN_KEY]}
    context = RunContext(root=str(tmp_path / "root"), run_id=run_key)
    context.recording.outage.prolong()
    RunRecorder(context.recording, run_key, stage="evaluate").set_tags({"waited": "yes"})
    context.recording.outage.end()
    assert list((tmp_path / "root" / "unsent").iterdir())
    stages = tracking.client.search_runs(["1"], f"tags.`{PARENT}` = '{candidate.run_id}'")
    (stage,) = (stage.info.run_id for stage in stages if stage.info.run_name == "register")
    tracking.client.set_tag(stage, PROCESS, "another-host 1 1")
    tracking.client.set_tag(stage, HEARTBEAT, "1700000000")
    for run_id in (stage, candidate.run_id):
        tracking.client.update_run(run_id, status="RUNNING")
    assert run_retraining(tmp_path, {}).outcome.startswith("unchanged")
    assert not list((tmp_path / "root" / "unsent").iterdir())
    evaluated = tracking.client.search_runs(["1"], "tags.waited = 'yes'")
    assert [run.info.run_name for run in evaluated] == ["evaluate"]
    assert tracking.client.get_run(stage).info.status == "KILLED"
    assert tracking.client.get_run(candidate.run_id).info.status == "FINISHED"
