"""Runs in MLflow: parameters, curves and files, recorded once however often a task runs."""

import json
import math
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from hand1000.core.errors import Hand1000Error
from hand1000.registry.connection import connect
from hand1000.registry.processes import HEARTBEAT, PROCESS
from hand1000.registry.register import register_candidate
from hand1000.registry.source import LoggedDataset, source_tags
from hand1000.registry.tracking import PARENT, RunTracker
from tests.support.registration import CARD, HISTORY


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


def test_two_processes_record_each_final_value_once(runs):
    """Both have found nothing before either of them records its own value."""
    context, names = multiprocessing.get_context("fork"), [f"peak_gib.{part}" for part in range(8)]
    run_id = RunTracker("e", "k", connect(runs)).run_id
    barrier, queue = context.Barrier(2), context.Queue()

    def work(value: float) -> None:
        try:
            run = RunTracker("e", "k", connect(runs))
            for name in names:
                barrier.wait(30)
                run.log_metrics({name: value})
                run.log_metrics({name: value + 1})
            queue.put("")
        except BaseException as error:
            queue.put(repr(error))

    processes = [context.Process(target=work, args=(value,)) for value in (1.0, 2.0)]
    for process in processes:
        process.start()
    assert [queue.get(timeout=60) for _ in processes] == ["", ""]
    for process in processes:
        process.join()
    client = connect(runs).client
    assert [len(client.get_metric_history(run_id, name)) for name in names] == [1] * len(names)


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


def test_long_values_are_cut_and_stay_distinct(runs):
    run = RunTracker("e", "k", connect(runs))
    long = {"filters": "x" * 7000}
    run.log_params(long)
    run.log_params(long)
    with pytest.raises(Hand1000Error, match="filters was recorded as"):
        run.log_params({"filters": "x" * 7001})
    run.set_tags({"note": "y" * 9000})
    data = run.tracking.client.get_run(run.run_id).data
    assert len(data.params["filters"]) == 6000 and len(data.tags["note"]) == 8000


def test_value_that_a_server_has_cut_is_no_change(tracking):
    run = RunTracker("e", "cut", tracking)
    for name, text in (("plain", "x" * 9000), ("wide", "\N{WAVING HAND SIGN}" * 9000)):
        # As a program records it that leaves the cut to MLflow.
        tracking.client.log_param(run.run_id, name, text)
        RunTracker("e", "cut", tracking).log_params({name: text})
        with pytest.raises(Hand1000Error, match=f"{name} was recorded as"):
            run.log_params({name: f"y{text}"})
        RunTracker("e", "cut", tracking).log_params({f"{name} by us": text})
        RunTracker("e", "cut", tracking).log_params({f"{name} by us": text})


def test_stage_of_a_dead_process_is_marked_at_the_next_run(tracking):
    def work() -> None:
        tracker = RunTracker("e", "left", connect(Path(tracking.lock_file or "x").parent))
        tracker.child_run("train").log_metrics({"x": 1.0})
        tracker.child_run("done").finish()
        os.kill(os.getpid(), signal.SIGKILL)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    tracker = RunTracker("e", "left", tracking)
    tracker.child_run("mine")

    def states() -> dict[str, str]:
        runs = tracking.client.search_runs([tracker.experiment_id], f"tags.`{PARENT}` = '{tracker.run_id}'")
        return {run.info.run_name: run.info.status for run in runs}

    assert states() == {"train": "RUNNING", "done": "FINISHED", "mine": "RUNNING"}
    assert tracker.end_abandoned_stages() == ["train"]
    assert states() == {"train": "KILLED", "done": "FINISHED", "mine": "RUNNING"}
    tracker.child_run("train")
    assert states()["train"] == "RUNNING"


def test_stage_of_another_host_ends_an_hour_after_its_heartbeat(tracking):
    tracker = RunTracker("e", "elsewhere", tracking)
    ages = {"working": 3000, "silent": 4000}
    for name, seconds in ages.items():
        stage = tracker.child_run(name)
        tags = {PROCESS: "another-host 1 1", HEARTBEAT: str(int(time.time()) - seconds)}
        stage.set_tags(tags)
    old = tracker.child_run("earlier")
    tracking.client.set_tag(old.run_id, PROCESS, "another-host 1 1")
    tracking.client.delete_tag(old.run_id, HEARTBEAT)
    assert tracker.end_abandoned_stages() == ["silent"]


def test_finished_run_keeps_its_end_and_its_seconds(runs):
    tracking = connect(runs)
    stage = RunTracker("e", "k", tracking).child_run("train")
    stage.log_seconds("all", 12.5)
    stage.finish()
    end = tracking.client.get_run(stage.run_id).info.end_time
    time.sleep(0.01)
    again = RunTracker("e", "k", connect(runs)).child_run("train")
    again.log_seconds("all", 0.0)
    again.set_tags({"hand1000.artifact.all": "artifacts/train/0"})
    again.finish()
    info = tracking.client.get_run(stage.run_id).info
    assert (info.status, info.end_time) == ("FINISHED", end)
    assert RunTracker("e", "k", tracking).stage_seconds() == {"train": 12.5}
    assert RunTracker("e", "k", tracking).stage_peaks() == {}
    for shard, gib in enumerate((2, 3)):
        again.log_peak(f"shard_{shard}", gib * 2**30)
    assert RunTracker("e", "k", tracking).stage_peaks() == {"train": 3.0}
    # What is new opens it again.
    again.log_seconds("more", 1.0)
    assert tracking.client.get_run(stage.run_id).info.status == "RUNNING"
    again.finish()
    assert tracking.client.get_run(stage.run_id).info.end_time > end


def test_run_names_its_source_and_commit(runs, monkeypatch):
    monkeypatch.setattr("sys.argv", ["pyflyte", "run", "workflows/train_gesture.py", "train_gesture"])
    monkeypatch.setenv("HAND1000_COMMIT", "0123abc")
    source_tags.cache_clear()
    run = RunTracker("e", "k", connect(runs), name="four, 200 images, abc")
    recorded = run.tracking.client.get_run(run.run_id)
    assert recorded.info.run_name == "four, 200 images, abc"
    assert recorded.data.tags["mlflow.source.name"] == "workflows/train_gesture.py"
    assert recorded.data.tags["mlflow.source.git.commit"] == "0123abc"
    source_tags.cache_clear()


def test_metrics_of_a_model_name_their_dataset(tracking, model_dir):
    run = RunTracker("hand1000 tests", "run-1", tracking)
    gesture = "peace" if tracking.lock_file else "stop"
    version = register_candidate(run, model_dir, gestures=(gesture,), metrics={}, card=CARD)
    dataset = LoggedDataset(f"{gesture}, test", "d" * 64, "s3://bucket/images", 200)
    values = {"base/FID": 60.0, "tuned/FID": 20.0, "tuned/gesture accuracy/four": None, "tuned/KID": math.inf}
    for _ in range(2):
        run.log_dataset(dataset, "testing")
        run.log_metrics(values)
        run.log_model_metrics(version.model_id, values, dataset)
    recorded = tracking.client.get_run(run.run_id)
    assert recorded.data.metrics.items() >= {"base/FID": 60.0, "tuned/FID": 20.0}.items()
    assert len(tracking.client.get_metric_history(run.run_id, "tuned/FID")) == 1
    (used,) = [used.dataset for used in recorded.inputs.dataset_inputs if used.dataset.name == dataset.name]
    assert used.digest == 36 * "d" and "s3://bucket/images" in used.source
    model = tracking.client.get_logged_model(version.model_id)
    assert {(metric.key, metric.value, metric.dataset_name, metric.run_id) for metric in model.metrics} == {
        ("base/FID", 60.0, dataset.name, run.run_id),
        ("tuned/FID", 20.0, dataset.name, run.run_id),
    }
    assert version.name in {link["name"] for link in json.loads(model.tags["mlflow.modelVersions"])}
