"""The database of an embedded MLflow: never half made in its place, and damage is one line."""

import multiprocessing
import os
import shutil
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from hand1000.core.errors import Hand1000Error, TransientError
from hand1000.registry.connection import connect
from hand1000.registry.tracking import RunTracker


def connect_in_child(folder: Path) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=connect, args=(folder,))
    process.start()
    return process


def test_killed_while_it_is_made_leaves_none(tmp_path, migrated):
    first = connect_in_child(tmp_path)
    deadline = time.monotonic() + 60
    while not any(part.stat().st_size > 100_000 for part in tmp_path.glob(".mlflow.db.*.part")):
        assert time.monotonic() < deadline and first.is_alive()
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    assert not (tmp_path / "mlflow.db").exists()
    assert RunTracker("e", "k", connect(tmp_path)).run_id
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow.db", "mlflow.lock"]


def test_half_made_database_is_replaced(tmp_path, migrated):
    # What an interrupted migration in place has left: tables, a journal and no records.
    half_made = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(half_made)) as connection, connection:
        connection.execute("CREATE TABLE experiments (experiment_id INTEGER PRIMARY KEY)")
        connection.execute("CREATE TABLE runs (run_uuid VARCHAR(32))")
    Path(f"{half_made}-journal").write_bytes(b"a journal that must not reach the new file")
    with pytest.raises(Hand1000Error, match="mlflow.db: no MLflow here"):
        connect(tmp_path, create=False)
    assert RunTracker("e", "k", connect(tmp_path)).run_id


def test_empty_file_is_replaced_and_a_full_one_kept(tmp_path, runs):
    tracker = RunTracker("e", "k", connect(runs))
    assert RunTracker("e", "k", connect(runs)).run_id == tracker.run_id
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection, connection:
        connection.execute("CREATE TABLE notes (text VARCHAR)")
    with pytest.raises(Hand1000Error, match="other.db: a database of another program"):
        connect(registry=tmp_path / "other.db")


@pytest.mark.parametrize("damage", ["cut", "zeroed", "garbled"])
def test_damage_is_one_line_with_the_remedy(runs, damage, capfd):
    database = runs / "mlflow.db"
    content = bytearray(database.read_bytes())
    if damage == "cut":
        del content[len(content) // 2 :]
    else:
        content[4096:-4096] = (b"\0" if damage == "zeroed" else b"\x5a") * (len(content) - 8192)
    database.write_bytes(content)
    with pytest.raises(Hand1000Error, match=f"{database}: damaged: .*; restore it from a copy, or move it") as raised:
        RunTracker("e", "k", connect(runs)).log_metrics({"x": 1.0})
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 600
    assert "Traceback" not in capfd.readouterr().err
    # The remedy works.
    database.rename(runs / "aside")


def test_locked_database_is_a_transient_error(runs, monkeypatch, capfd):
    monkeypatch.setattr("hand1000.registry.database._BUSY_SECONDS", 0.1)
    with closing(sqlite3.connect(runs / "mlflow.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TransientError, match="mlflow.db: another program has locked it"):
            connect(runs)
    assert "Traceback" not in capfd.readouterr().err


def test_database_of_another_mlflow_names_the_upgrade(runs):
    connect(runs)
    copy = runs.with_name("older")
    shutil.copytree(runs, copy)
    with closing(sqlite3.connect(copy / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    with pytest.raises(Hand1000Error, match="another version of MLflow; copy it, then run `mlflow db upgrade sqlite:"):
        connect(copy)


def read_as_nobody(folder: Path, results) -> None:
    os.setgid(65534)
    os.setuid(65534)
    try:
        tracking = connect(registry=folder, create=False)
        names = [experiment.name for experiment in tracking.client.search_experiments()]
        with pytest.raises(Hand1000Error, match="not writable"):
            RunTracker("e", "k2", tracking)
        results.put(sorted(names))
    except BaseException as error:  # noqa: BLE001 (reported to the parent)
        results.put(repr(error))


def test_registry_that_is_read_only_can_be_read(tmp_path, migrated):
    folder = tmp_path / "kept"
    folder.mkdir()
    shutil.copy(migrated, folder / "mlflow.db")
    RunTracker("e", "k", connect(folder))
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    for path in (tmp_path, *tmp_path.parents[:3]):
        path.chmod(path.stat().st_mode | 0o055)
    (folder / "mlflow.lock").chmod(0o444)
    folder.chmod(0o555)
    process = context.Process(target=read_as_nobody, args=(folder, results))
    process.start()
    assert results.get(timeout=60) == ["Default", "e"]
    process.join()
