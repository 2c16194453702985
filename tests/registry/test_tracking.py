"""Runs in MLflow: parameters, curves and files, recorded once however often a task runs."""

import math
from pathlib import Path

import pytest

from hand1000.core.errors import Hand1000Error
from hand1000.registry.connection import connect
from hand1000.registry.tracking import RunTracker
from tests.support.registration import HISTORY


def test_changed_parameter_is_an_error(runs):
    tracker = RunTracker("e", "k", connect(runs))
    tracker.log_params({"seed": 1})
    tracker.log_params({"seed": 1, "steps": 5})
    with pytest.raises(Hand1000Error, match="run k: seed was recorded as '1', now '2'"):
        tracker.log_params({"seed": 2})


def test_killed_run_is_resumed_and_finished_run_reopened(runs):
    tracking = connect(runs)
    killed = RunTracker("e", "k", tracking).child_run("train")
    killed.log_history(HISTORY[:5])
    killed.set_tags({"a": 1})
    again = RunTracker("e", "k", connect(runs)).child_run("train")
    assert again.run_id == killed.run_id
    # A point that a killed process recorded stays, even where the retry would write another value.
    again.log_history([{**row, "loss": row["loss"] + 1} for row in HISTORY[:5]] + HISTORY[5:8])
    values = [point.value for point in tracking.client.get_metric_history(again.run_id, "loss")]
    assert values == [row["loss"] for row in HISTORY[:8]]
    again.finish("FAILED")
    assert tracking.client.get_run(again.run_id).info.status == "FAILED"
    assert RunTracker("e", "k", tracking).child_run("train").run_id == again.run_id
    assert tracking.client.get_run(again.run_id).info.status == "RUNNING"
    again.finish()
    assert tracking.client.get_run(again.run_id).info.status == "FINISHED"


def test_mlflow_drops_only_equal_points(runs):
    # Why points carry a fixed time and why steps that are known are skipped all the same.
    from mlflow.entities import Metric

    run = RunTracker("e", "k", connect(runs))
    for value in (1.0, 1.0, 2.0):
        run.tracking.client.log_batch(run.run_id, metrics=[Metric("loss", value, timestamp=3, step=3)])
    assert len(run.tracking.client.get_metric_history(run.run_id, "loss")) == 2


def test_metrics_without_a_number_are_omitted(runs):
    run = RunTracker("e", "k", connect(runs))
    run.log_metrics({"kid": -0.01, "fid": None, "hand": math.nan})
    assert run.tracking.client.get_run(run.run_id).data.metrics == {"kid": -0.01}


def test_logged_file_replaces_the_earlier_one(tmp_path, runs):
    run = RunTracker("e", "k", connect(runs))
    for text in ("first", "second"):
        (tmp_path / "report.html").write_text(text)
        run.log_file(tmp_path / "report.html", "report")
    client = run.tracking.client
    assert [entry.path for entry in client.list_artifacts(run.run_id, "report")] == ["report/report.html"]
    downloaded = Path(client.download_artifacts(run.run_id, "report/report.html", str(tmp_path)))
    assert downloaded.read_text() == "second"


def test_deleted_experiment_and_malformed_key_are_errors(runs):
    tracking = connect(runs)
    experiment = RunTracker("e", "k", tracking).experiment_id
    tracking.client.delete_experiment(experiment)
    with pytest.raises(Hand1000Error, match="experiment 'e' is deleted"):
        RunTracker("e", "k", tracking)
    with pytest.raises(Hand1000Error, match="run key"):
        RunTracker("f", "k' OR 1=1", tracking)
