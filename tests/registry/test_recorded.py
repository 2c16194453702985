"""What stands in for an embedded MLflow of which nothing has changed: exactly what it would answer, or nothing."""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from hand1000.registry.connection import Tracking, connect, locate_embedded
from hand1000.registry.recorded import find_recorded_run, note_recorded_run
from hand1000.registry.tracking import EXPERIMENT, RunTracker
from hand1000.registry.versions import ARTIFACTS, CHAMPION, ENDED

KEY, GESTURES = "four-1", ("four",)


def record_run(runs: Path, status: str = "FINISHED", stage_status: str = "FINISHED") -> tuple[Tracking, str]:
    """Record a run with one stage and one file; return the connection and MLflow's id."""
    tracking = connect(runs)
    tracker = RunTracker(EXPERIMENT, KEY, tracking)
    stage = tracker.child_run("train_unet")
    stage.set_tags({f"{ARTIFACTS}shard_1_of_2": "artifacts/train_unet/a", f"{ARTIFACTS}all": "artifacts/train_unet/b"})
    if stage_status != "RUNNING":
        stage.finish(stage_status)  # type: ignore[arg-type]
    report = runs / "report.html"
    report.write_text("<p>")
    tracker.log_file(report)
    if status != "RUNNING":
        tracker.set_tags({ENDED: status})
        tracker.finish(status)  # type: ignore[arg-type]
    return tracking, tracker.run_id


@pytest.fixture
def database(runs: Path) -> Path:
    """A database with a run that has been noted."""
    tracking, _ = record_run(runs)
    note_recorded_run(tracking, KEY, GESTURES)
    assert tracking.database is not None and find_recorded_run(tracking.database, KEY) is not None
    return tracking.database


@pytest.mark.parametrize("status", ["FINISHED", "FAILED"])
def test_notes_are_what_mlflow_answers(runs: Path, status: str) -> None:
    tracking, run_id = record_run(runs, status)
    client = tracking.client
    client.create_registered_model("hand1000-four")
    client.create_model_version("hand1000-four", str(runs / "mlartifacts"), tags={"hand1000.dataset": "d"})
    client.set_registered_model_alias("hand1000-four", CHAMPION, "1")
    note_recorded_run(tracking, KEY, GESTURES)
    located = locate_embedded(runs)
    assert located is not None and located == Tracking(tracking.uri, tracking.artifact_root, tracking.lock_file)
    recorded = find_recorded_run(located.database or runs, KEY)
    assert recorded is not None and recorded.run_id == run_id
    champion = recorded.find_champion()
    assert champion is not None and champion.uri == "models:/hand1000-four/1"
    assert champion.tags == {"hand1000.dataset": "d"}
    assert recorded.holds("train_unet", "shard_1_of_2", "artifacts/train_unet/a")
    assert not recorded.holds("train_unet", "all", "artifacts/train_unet/a")
    assert find_recorded_run(located.database or runs, "four-2") is None


def test_any_write_to_the_database_voids_the_notes(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        assert connection.execute("UPDATE runs SET name = name || '!' WHERE name = 'train_unet'").rowcount == 1
    assert find_recorded_run(database, KEY) is None
    note_recorded_run(connect(database), KEY, GESTURES)
    assert find_recorded_run(database, KEY) is not None


def test_write_under_way_voids_the_notes(database: Path) -> None:
    for suffix in ("-journal", "-wal"):
        journal = database.with_name(f"{database.name}{suffix}")
        journal.write_bytes(b"")
        assert find_recorded_run(database, KEY) is None
        journal.unlink()
    assert find_recorded_run(database, KEY) is not None


def test_copy_has_no_notes(database: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(database.parent, copied)
    assert find_recorded_run(copied / database.name, KEY) is None
    database.parent.rename(tmp_path / "moved")
    assert find_recorded_run(tmp_path / "moved" / database.name, KEY) is None


def test_lost_or_cut_file_of_the_run_voids_the_notes(database: Path) -> None:
    (report,) = (database.parent / "mlartifacts").rglob("report.html")
    report.write_text("")
    assert find_recorded_run(database, KEY) is None
    report.unlink()
    assert find_recorded_run(database, KEY) is None


def test_damaged_notes_are_skipped(database: Path) -> None:
    (notes,) = database.parent.glob("*.recorded.json")
    whole = notes.read_bytes()
    for damaged in (b"", b"[]", whole[:-10], whole.replace(b"train_unet", b"train_UNET", 1)):
        notes.write_bytes(damaged)
        assert find_recorded_run(database, KEY) is None
    notes.write_bytes(whole)
    assert find_recorded_run(database, KEY) is not None


@pytest.mark.parametrize(("status", "stage"), [("RUNNING", "FINISHED"), ("FINISHED", "KILLED"), ("KILLED", "FINISHED")])
def test_run_without_its_end_is_not_noted(runs: Path, status: str, stage: str) -> None:
    tracking, _ = record_run(runs, "RUNNING" if status == "KILLED" else status, stage)
    if status == "KILLED":
        RunTracker(EXPERIMENT, KEY, tracking).finish("KILLED")
    note_recorded_run(tracking, KEY, GESTURES)
    note_recorded_run(tracking, "unknown-1", GESTURES)
    assert not list(runs.glob("*.recorded.json"))


def test_server_has_no_notes(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert locate_embedded(runs) is None


def test_notes_are_read_without_mlflow(database: Path) -> None:
    code = (
        "import sys, pathlib; from hand1000.registry.recorded import find_recorded_run as find\n"
        f"print(find(pathlib.Path({str(database)!r}), {KEY!r}).run_id != '', 'mlflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["True", "False"], done.stderr
