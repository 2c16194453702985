"""Records of a run while MLflow is away: the work does not wait, nothing is lost, and nothing is recorded twice."""

import math
import multiprocessing
import os
import shutil
import signal
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest

import hand1000.registry.recorder as recorder_module
from hand1000.core.errors import Hand1000Error, TransientError
from hand1000.registry.connection import IMPATIENT, connect
from hand1000.registry.processes import HEARTBEAT
from hand1000.registry.recorder import Recording, RunRecorder, apply_call, send_waiting
from hand1000.registry.tracking import EXPERIMENT, RunTracker, find_run
from hand1000.registry.unsent import MAX_ROWS, Call, Outbox, UnsentRecord, merge_calls
from hand1000.storage.artifacts import open_store
from tests.support.registration import HISTORY
from tests.support.tcp_gate import tcp_gate


def make_recording(root: Path, folder: Path | None = None) -> Recording:
    return Recording(Outbox(open_store(str(root)).backend), lambda: connect(folder or root, patience=IMPATIENT))


def record_all(recorder: RunRecorder, folder: Path, *, between=lambda: None) -> None:
    """Record a stage of every kind; `between` is called in its middle."""
    report = folder / "report.html"
    report.write_text("a report")
    recorder.log_params({"settings": {"steps": 5, "note": "x" * 7000}})
    stage = recorder.child_run("train")
    for row in HISTORY[:10]:
        stage.log_history([row])
    between()
    for row in HISTORY[10:40]:
        stage.log_history([row])
    stage.log_history(HISTORY[:40])
    stage.log_seconds("all", np.float32(2.5))
    stage.log_peak("all", 2**30)
    stage.log_metrics({"nothing": math.nan})
    stage.set_tags({"hand1000.artifact.all": "artifacts/train/0"})
    stage.log_file(report, "data")
    stage.finish()
    recorder.log_metrics({"base/FID": 3.0})
    recorder.finish("FAILED")


def read_run(tracking, run) -> dict:
    client = tracking.client
    data = client.get_run(run.run_id).data
    return {
        "status": client.get_run(run.run_id).info.status,
        "params": data.params,
        "tags": {name: value for name, value in data.tags.items() if name.startswith("hand1000.artifact")},
        "curves": {
            name: [(point.step, point.value) for point in client.get_metric_history(run.run_id, name)]
            for name in data.metrics
        },
        "files": [entry.path for entry in client.list_artifacts(run.run_id, "data")],
    }


def read_all(tracking, run_key: str) -> list[dict]:
    tracker = RunTracker(EXPERIMENT, run_key, tracking)
    runs = tracking.client.search_runs([tracker.experiment_id], f"tags.`mlflow.parentRunId` = '{tracker.run_id}'")
    # `RunTracker` opens a failed run again.
    parent = read_run(tracking, tracker) | {"status": ""}
    return [parent, *(read_run(tracking, run.info) for run in runs)]


def waiting(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "unsent").rglob("*") if path.is_file())


def end_pause(recording: Recording) -> None:
    recording.outage.until = 0.0


@pytest.fixture
def expected(tmp_path, runs):
    record_all(RunRecorder(make_recording(tmp_path / "still", runs), "k"), tmp_path)
    assert waiting(tmp_path / "still") == []
    found = read_all(connect(runs), "k")
    assert len(found) == 2 and found[1]["status"] == "FINISHED" and len(found[1]["curves"]["loss"]) == 40
    return found


@pytest.mark.parametrize("kind", ["refusing", "silent"])
def test_lost_server_neither_delays_nor_loses(kind, server, expected, tmp_path, monkeypatch, caplog):
    with tcp_gate(server) as gate:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", gate.url)
        monkeypatch.setitem(recorder_module._SHORT_REQUESTS, "MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
        root = tmp_path / "root"
        recording = make_recording(root)
        gone = []

        def lose_server() -> None:
            gate.close()
            gate.silent = kind == "silent"
            if gate.silent:
                gate.open()
            gone.append(time.monotonic())

        record_all(RunRecorder(recording, f"key-{kind}"), tmp_path, between=lose_server)
        assert time.monotonic() - gone[0] < 12
        assert 1 < len(waiting(root)) < 40
        assert "the work goes on without MLflow, whose records wait in" in caplog.text
        # A second process of the same run, which never had a connection.
        record_all(RunRecorder(make_recording(root), f"key-{kind}"), tmp_path)
        kept = shutil.copytree(root / "unsent", tmp_path / "kept")
        gate.close()
        gate.silent = False
        gate.open()
        end_pause(recording)
        recording.send(connect())
        assert waiting(root) == []
        assert read_all(connect(), f"key-{kind}") == expected
        # Killed after the last record had arrived and before any was removed.
        shutil.rmtree(root / "unsent")
        shutil.move(kept, root / "unsent")
        RunRecorder(make_recording(root), f"key-{kind}").child_run("train")
        assert waiting(root) == []
        RunRecorder(make_recording(root), f"key-{kind}").child_run("train").finish()
        assert read_all(connect(), f"key-{kind}") == expected


def test_locked_database_does_not_delay(runs, expected, tmp_path, caplog):
    root = tmp_path / "root"
    recording = make_recording(root, runs)
    other = sqlite3.connect(runs / "mlflow.db")

    def lock() -> None:
        other.execute("BEGIN EXCLUSIVE")

    started = time.monotonic()
    record_all(RunRecorder(recording, "k2"), tmp_path, between=lock)
    assert time.monotonic() - started < 15 and waiting(root)
    assert "another program has locked it" in caplog.text
    other.rollback()
    other.close()
    end_pause(recording)
    RunRecorder(recording, "other").child_run("train")
    assert waiting(root) == [] and read_all(connect(runs), "k2") == expected
    assert "records that waited" in caplog.text


def test_run_of_a_process_that_died_in_an_outage_is_killed(runs, tmp_path):
    root = tmp_path / "root"

    def work() -> None:
        recording = make_recording(root, runs)
        recording.outage.prolong()
        RunRecorder(recording, "dead").child_run("train").log_metrics({"x": 1.0})
        RunRecorder(recording, "dead").child_run("done").finish()
        os.kill(os.getpid(), signal.SIGKILL)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    RunRecorder(make_recording(root, runs), "other").log_metrics({"x": 1.0})
    states = {run["status"] for run in read_all(connect(runs), "dead")[1:]}
    assert states == {"KILLED", "FINISHED"} and waiting(root) == []


@pytest.mark.parametrize(("age", "status"), [(60, "RUNNING"), (4000, "KILLED")])
def test_records_of_a_process_elsewhere_do_not_end_its_run(age, status, runs, tmp_path):
    outbox = make_recording(tmp_path / "root", runs).outbox
    for stage in ("", "train"):
        call = Call(method="log_history", arguments={"rows": [{"step": 1, "x": 1.0}]})
        record = UnsentRecord(
            run_key="k", stage=stage, process="another-host 1 1", seen=time.time() - age, calls=(call,)
        )
        outbox.add(record)
    tracking = connect(runs)
    send_waiting(outbox, tracking)
    parent = find_run(tracking, "k")
    stage = read_all(tracking, "k")[1]
    assert parent is not None and (parent.info.status, stage["status"]) == (status, status)


def test_process_at_work_sends_heartbeats(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(recorder_module, "HEARTBEAT_SECONDS", 0.0)
    tracking = connect(runs)
    stage = RunRecorder(make_recording(tmp_path, runs), "k").child_run("train")
    run_id = RunTracker(EXPERIMENT, "k", tracking).child_run("train", owned=False).run_id
    tracking.client.set_tag(run_id, HEARTBEAT, "0")
    stage.send_heartbeat()
    assert time.time() - int(tracking.client.get_run(run_id).data.tags[HEARTBEAT]) < 10


def test_outage_without_end_keeps_a_bounded_number(tmp_path, monkeypatch):
    def fail():
        raise Hand1000Error("gone")

    root = tmp_path / "root"
    recording = Recording(Outbox(open_store(str(root)).backend), fail)
    stage = RunRecorder(recording, "k").child_run("train")
    for step in range(300):
        stage.log_history([{"step": step, "loss": 1.0}])
    assert len(waiting(root)) < 33
    monkeypatch.setattr("hand1000.registry.unsent.MAX_ROWS", 100)
    calls = [Call(method="log_history", arguments={"rows": [{"step": step}]}) for step in range(1000)]
    (merged,) = merge_calls(calls)
    steps = [row["step"] for row in merged.arguments["rows"]]
    assert len(steps) <= 100 < MAX_ROWS and steps[-1] == 999 and steps == sorted(steps)


def test_pause_doubles_up_to_its_maximum(tmp_path):
    attempts = []

    def fail():
        attempts.append(1)
        raise Hand1000Error("gone")

    recording = Recording(Outbox(open_store(str(tmp_path)).backend), fail)
    recorder, pauses = RunRecorder(recording, "k"), []
    for _ in range(7):
        recorder.log_metrics({"x": 1.0})
        recorder.log_metrics({"y": 1.0})
        pauses.append(recording.outage.pause)
        end_pause(recording)
    assert pauses == [15, 30, 60, 120, 240, 300, 300] and len(attempts) == 7


def test_damaged_or_refused_record_holds_up_no_other(runs, tmp_path, caplog):
    root = tmp_path / "root"
    recording = make_recording(root, runs)
    recording.outage.prolong()
    recorder = RunRecorder(recording, "k")
    recorder.log_metrics({"first": 1.0})
    recorder.log_params({"seed": 1})
    recorder.log_params({"seed": 2})
    recorder.log_metrics({"last": 1.0})
    damaged = root / "unsent" / waiting(root)[0]
    # Of a process that was killed between a file and the record that refers to it, long ago and now.
    young = recording.outbox.add_file(damaged)
    (root / "unsent" / f"{'0' * 20}-{'a' * 64}.bin").write_bytes(b"")
    damaged.write_bytes(damaged.read_bytes().replace(b"first", b"fIrst"))
    end_pause(recording)
    recorder.log_metrics({"now": 1.0})
    tracking = connect(runs)
    recorded = tracking.client.get_run(RunTracker(EXPERIMENT, "k", tracking).run_id).data
    assert recorded.params == {"seed": "1"} and set(recorded.metrics) == {"last", "now"}
    (waiting_orphan,) = waiting(root)
    assert waiting_orphan == young and len(list((root / "unsent-refused").iterdir())) == 1
    assert "its bytes are not those that were written" in caplog.text and "seed was recorded as" in caplog.text


def test_a_refused_record_is_no_outage(runs, tmp_path, caplog):
    root = tmp_path / "root"
    recorder = RunRecorder(make_recording(root, runs), "k")
    recorder.log_params({"seed": 1})
    recorder.log_params({"seed": 2})
    assert "MLflow refuses a record" in caplog.text and "seed was recorded as" in caplog.text
    recorder.log_metrics({"x": 1.0})
    assert waiting(root) == [] and len(list((root / "unsent-refused").iterdir())) == 1
    tracking = connect(runs)
    assert tracking.client.get_run(RunTracker(EXPERIMENT, "k", tracking).run_id).data.metrics == {"x": 1.0}


def test_an_error_that_needs_a_person_shows_in_an_outage(tmp_path, caplog):
    errors = iter([TransientError("away"), TransientError("away"), Hand1000Error("wrong password")] * 2)

    def fail():
        raise next(errors)

    recording = Recording(Outbox(open_store(str(tmp_path)).backend), fail)
    recorder = RunRecorder(recording, "k")
    for _ in range(3):
        recorder.log_metrics({"x": 1.0})
        end_pause(recording)
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == ["away", "wrong password"]


def test_text_that_is_not_utf8_and_a_full_disk_do_not_stop_it(tmp_path, runs, monkeypatch, caplog):
    recording = make_recording(tmp_path / "root", runs)
    recorder = RunRecorder(recording, "k")
    recorder.log_params({"path": "a\udcff"})
    recorder.set_tags({"path": "a\udcff"})
    recording.outage.prolong()

    def refuse(key, data):
        raise Hand1000Error("no space left")

    monkeypatch.setattr(recording.outbox.backend, "write", refuse)
    recorder.log_metrics({"x": 1.0})
    assert "a record of run k for MLflow is lost: no space left" in caplog.text


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("log_history", {"rows": [{"loss": 1.0}]}),
        ("log_history", {"rows": 3}),
        ("log_params", {"params": ["a"]}),
        ("set_tags", {}),
        ("finish", {"status": "GONE", "extra": 1}),
        ("log_dataset", {"dataset": {"name": "x"}, "context": "training"}),
        ("log_file", {"name": "../x", "folder": None}),
        ("log_file", {"folder": 3}),
    ],
)
def test_malformed_call_is_refused_in_one_line(runs, method, arguments):
    run = RunTracker(EXPERIMENT, "k", connect(runs))
    with pytest.raises(Hand1000Error, match="malformed|not a plain relative path"):
        apply_call(run, Call(method=method, arguments=arguments), b"content")


def test_record_refers_to_no_file_but_its_own(tmp_path, runs):
    (tmp_path / "secret").write_text("not for MLflow")
    recording = make_recording(tmp_path / "root", runs)
    for content in ("../../secret", "../secret"):
        call = Call(method="log_file", arguments={"name": "x", "folder": None, "content": content})
        recording.outbox.add(UnsentRecord(run_key="k", calls=(call,)))
    tracking = connect(runs)
    recording.send(tracking)
    assert tracking.client.list_artifacts(RunTracker(EXPERIMENT, "k", tracking).run_id) == []
    assert waiting(tmp_path / "root") == []


@pytest.mark.parametrize("status", ["FAILED", "FINISHED"])
def test_late_records_leave_an_ended_run_as_it_ended(status, tmp_path, runs):
    tracking = connect(runs)
    tracker = RunTracker(EXPERIMENT, "k", tracking)
    tracker.child_run("train").finish()
    tracker.finish(status)
    outbox = make_recording(tmp_path / "root", runs).outbox
    for stage in ("", "train"):
        call = Call(method="log_history", arguments={"rows": [{"step": 1, "late": 1.0}]})
        outbox.add(UnsentRecord(run_key="k", stage=stage, process="another-host 1 1", calls=(call,)))
    assert send_waiting(outbox, tracking) == 2
    run = tracking.client.get_run(tracker.run_id)
    assert run.info.status == status and run.data.metrics["late"] == 1.0
