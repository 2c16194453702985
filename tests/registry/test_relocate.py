"""An embedded MLflow whose folder is moved or copied."""

import shutil
from pathlib import Path

import pytest

from hand1000.core.errors import Hand1000Error
from hand1000.registry.connection import Tracking, connect
from hand1000.registry.load import load_model_folder
from hand1000.registry.relocate import _ADDRESSES, relocate_files
from hand1000.registry.tracking import RunTracker
from tests.support.registration import record_and_register


@pytest.fixture
def original(runs: Path, model_dir: Path) -> Tracking:
    """An MLflow with a registered model and a run that has a file."""
    tracking = connect(runs)
    record_and_register(tracking, model_dir, "k")
    RunTracker("hand1000 tests", "k", tracking).log_file(model_dir / "model_index.json")
    return tracking


def addresses(tracking: Tracking) -> list[str]:
    """All addresses of files that MLflow keeps, except that of its default experiment."""
    client = tracking.client
    experiment = client.get_experiment_by_name("hand1000 tests")
    versions = client.search_model_versions()
    return [
        experiment.artifact_location,
        *(run.info.artifact_uri for run in client.search_runs([experiment.experiment_id])),
        *(model.artifact_location for model in client.search_logged_models([experiment.experiment_id])),
        *(version.source for version in versions),
        *(client.get_model_version_download_uri(version.name, version.version) for version in versions),
    ]


URI = "models:/hand1000-call-candidates/1"


@pytest.mark.parametrize("transfer", [shutil.move, shutil.copytree])
def test_moved_or_copied_registry_uses_its_own_files(transfer, original, runs, tmp_path, monkeypatch):
    target = tmp_path / "another place, 100 %" / "registry"
    target.parent.mkdir()
    transfer(runs, target)
    monkeypatch.chdir("/")
    moved = connect(registry=target)
    assert load_model_folder(URI, registry=target).is_relative_to(target)
    assert len(addresses(moved)) == 6
    assert all(address.startswith((target / "mlartifacts").as_uri() + "/") for address in addresses(moved))
    run = RunTracker("hand1000 tests", "k", moved)
    note = tmp_path / "note.txt"
    note.write_text("new")
    run.log_file(note)
    names = {file.path for file in moved.client.list_artifacts(run.run_id)}
    assert names == {"model_index.json", "note.txt"}
    if transfer is shutil.copytree:
        assert load_model_folder(URI, registry=runs).is_relative_to(runs)
        assert not list(runs.rglob("note.txt"))


def test_two_processes_may_move_at_once(original, runs, tmp_path):
    import subprocess
    import sys

    shutil.move(runs, tmp_path / "moved")
    code = (
        "import sys; from hand1000.registry.load import load_model_folder as f; print(f(sys.argv[1], registry='moved'))"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, URI], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert outputs[0] == outputs[1] and Path(outputs[0]).is_relative_to(tmp_path / "moved")


def test_copy_writes_nothing_into_its_original(runs, model_dir, tmp_path):
    """A copy of a root from before its first file; the original goes on, so that its folder of files exists."""
    tracking = connect(runs)
    run_id = RunTracker("hand1000 tests", "k", tracking).run_id
    shutil.copytree(runs, tmp_path / "copy")
    RunTracker("hand1000 tests", "k", tracking).log_file(model_dir / "model_index.json")
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*") if "mlartifacts" in path.parts}
    copy = connect(tmp_path / "copy")
    record_and_register(copy, model_dir, "k")
    run = RunTracker("hand1000 tests", "k", copy)
    run.log_file(model_dir / "model_index.json")
    assert run.run_id == run_id
    assert len(addresses(copy)) == 6
    assert all(address.startswith((tmp_path / "copy/mlartifacts").as_uri() + "/") for address in addresses(copy))
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*") if "mlartifacts" in path.parts} == before


def test_copied_database_without_its_files_takes_no_others(original, runs, tmp_path):
    """The files of the original are not used, because whoever uses them could also remove them."""
    shutil.copytree(runs, tmp_path / "copy", ignore=shutil.ignore_patterns("mlartifacts"))
    with pytest.raises(Hand1000Error, match="has no model_index.json; restore its files"):
        load_model_folder(URI, registry=tmp_path / "copy")
    shutil.copytree(runs / "mlartifacts", tmp_path / "copy/mlartifacts")
    assert load_model_folder(URI, registry=tmp_path / "copy").is_relative_to(tmp_path / "copy")


def test_database_moved_without_its_files_keeps_them(original, runs, tmp_path, caplog):
    (tmp_path / "apart").mkdir()
    shutil.move(runs / "mlflow.db", tmp_path / "apart")
    assert load_model_folder(URI, registry=tmp_path / "apart").is_relative_to(runs)
    assert f"its files are in {runs / 'mlartifacts'}, not beside it" in caplog.text


def test_failed_relocation_changes_nothing(original, runs, tmp_path, monkeypatch):
    before = addresses(original)
    shutil.move(runs, tmp_path / "moved")
    with monkeypatch.context() as patch:
        patch.setattr("hand1000.registry.relocate._ADDRESSES", (*_ADDRESSES, ("no_such_table", "address")))
        with pytest.raises(Hand1000Error, match="moved/mlflow.db: damaged: no such table"):
            relocate_files(tmp_path / "moved" / "mlflow.db")
    shutil.move(tmp_path / "moved", runs)
    assert addresses(original) == before
