"""The connection to an embedded MLflow and to a server."""

import multiprocessing
import os
from pathlib import Path

import pytest

from hand1000.core.errors import Hand1000Error, TransientError
from hand1000.registry.connection import IMPATIENT, connect, redact_userinfo, registry_option
from hand1000.registry.tracking import RunTracker
from tests.support.mlflow_server import free_port
from tests.support.registration import HISTORY


def open_and_record(folder: Path, barrier, results) -> None:
    barrier.wait()
    tracker = RunTracker("e", "shared", connect(folder))
    tracker.child_run("train").log_history(HISTORY[:20])
    results.put((tracker.run_id, tracker.child_run("train").run_id))


def test_concurrent_processes_share_one_new_database(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    processes = [context.Process(target=open_and_record, args=(tmp_path, barrier, results)) for _ in range(2)]
    for process in processes:
        process.start()
    run_ids = {results.get(timeout=200) for _ in processes}
    for process in processes:
        process.join(timeout=200)
    assert len(run_ids) == 1
    client = connect(tmp_path).client
    assert len(client.search_runs([RunTracker("e", "shared", connect(tmp_path)).experiment_id])) == 2
    assert len(client.get_metric_history(run_ids.pop()[1], "loss")) == 20


def test_error_of_a_silent_server_omits_the_password(tmp_path, monkeypatch):
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:s3cret@127.0.0.1:{port}")
    with pytest.raises(
        Hand1000Error, match=f"http://127.0.0.1:{port}: no MLflow server answers .*; start it, or correct --registry"
    ) as raised:
        connect(tmp_path, patience=IMPATIENT)
    assert "s3cret" not in str(raised.value) and "\n" not in str(raised.value)


def test_server_password_is_passed_to_mlflow_only(server, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.replace("http://", "http://me:s3%3Acret@"))
    tracking = connect(tmp_path)
    assert tracking.uri == tracking.redacted_uri == os.environ["MLFLOW_TRACKING_URI"] == server
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "s3:cret"
    assert not (tmp_path / "mlflow.db").exists()
    assert redact_userinfo("postgresql://u:p@db/mlflow") == "postgresql://db/mlflow"
    with pytest.raises(Hand1000Error, match="MLflow at http://127.0.0.1"), tracking.readable_errors():
        tracking.client.get_run("0" * 32)


def test_address_is_a_folder_a_file_or_a_uri(runs, server, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    database = f"sqlite:///{runs / 'mlflow.db'}"
    for address in (runs, "runs", "runs/", runs / "mlflow.db", "sqlite:///runs/mlflow.db", database):
        assert connect(registry=address, create=False).uri == database
    assert connect(registry=server).uri == server
    # The option wins over the environment, and the environment over the default.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    assert connect(registry=runs).uri == database and connect(runs).uri == server
    for address in ("elsewhere", "sqlite:///elsewhere/mlflow.db"):
        with pytest.raises(Hand1000Error, match="elsewhere/mlflow.db: no MLflow here; .* --registry"):
            connect(registry=address, create=False)
    Path("plain.txt").write_text("no database")
    with pytest.raises(Hand1000Error, match="plain.txt: file is not a database; name a database of MLflow"):
        connect(registry="plain.txt", create=False)


def test_commands_name_a_registry_only_where_needed(runs, server, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert registry_option(connect(runs)) == "--registry runs"
    monkeypatch.chdir(runs)
    assert registry_option(connect(runs)) == "--registry ."
    monkeypatch.chdir("/")
    assert registry_option(connect(runs)) == f"--registry {runs}".replace(" /", " ")
    monkeypatch.chdir(tmp_path)
    runs.rename("artifacts")
    assert registry_option(connect()) == ""
    assert registry_option(connect(registry=server)) == f"--registry {server}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{server}/")
    assert registry_option(connect()) == "" and registry_option(connect(registry="artifacts")) == "--registry artifacts"


@pytest.mark.parametrize("address", ["ftp://host/mlflow", "http://", "file:///tmp/x", "databricks://me:s3cret@x"])
def test_address_of_another_kind_is_one_short_line(address):
    with pytest.raises(Hand1000Error, match="no address of an MLflow; give a folder, or http") as raised:
        connect(registry=address)
    assert len(str(raised.value)) < 120 and "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "transient"),
    [
        ("API request to http://h/x failed with exception Connection refused", True),
        ("API request to endpoint /x failed with error code 503 != 200. Response body: ''", True),
        ("API request to endpoint /x failed with error code 404 != 200. Response body: ''", False),
        ("API request to endpoint was successful but the response body was not in a valid JSON format", True),
        ("Got invalid value for argument", False),
    ],
)
def test_only_faults_that_may_pass_are_transient(runs, text, transient):
    from mlflow.exceptions import MlflowException

    with pytest.raises(Hand1000Error) as raised, connect(runs).readable_errors():
        raise MlflowException(text)
    assert isinstance(raised.value, TransientError) == transient
