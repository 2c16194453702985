"""The copy of an MLflow to another one."""

from pathlib import Path

import pytest

from hand1000.cli.main import main
from hand1000.core.errors import Hand1000Error
from hand1000.registry.connection import Tracking, connect
from hand1000.registry.copy_models import copy_registry
from hand1000.registry.load import load_model_folder
from hand1000.registry.register import register_candidate
from hand1000.registry.removed import remove_weights
from hand1000.registry.source import LoggedDataset
from hand1000.registry.tracking import RunTracker
from hand1000.storage.digests import tree_manifest
from tests.support.mlflow_server import mlflow_server
from tests.support.registration import CARD, HISTORY
from tests.support.tiny_models import save_tiny_model

CANDIDATES, REVIEWED = "hand1000-call-candidates", "hand1000-call"
METRICS = {"base/FID": 60.0, "tuned/FID": 20.0}


@pytest.fixture(scope="module")
def empty_server(tmp_path_factory):
    with mlflow_server(tmp_path_factory.mktemp("target")) as uri:
        yield uri


def record(tracking: Tracking, key: str, model_dir: Path, report: str) -> None:
    tracker = RunTracker("hand1000", key, tracking, name=f"call, {key}")
    tracker.log_params({"seed": 0})
    stage = tracker.child_run("train")
    stage.log_history(HISTORY[:50])
    stage.finish()
    version = register_candidate(tracker, model_dir, gestures=("call",), metrics={}, card=CARD)
    dataset = LoggedDataset("call, test", 64 * "d", "sample", 8)
    tracker.log_dataset(dataset, "testing")
    tracker.log_metrics(METRICS)
    tracker.log_model_metrics(version.model_id, METRICS, dataset)
    page = tracking.lock_file.with_name("report.html")
    page.write_text(report)
    tracker.log_file(page)
    tracker.log_file(page, "pages")
    tracker.finish()


@pytest.fixture
def source(runs: Path, model_dir: Path, tmp_path: Path) -> Tracking:
    """Two candidates, between them a deleted one; the second is the champion."""
    tracking = connect(runs)
    client = tracking.client
    record(tracking, "first", model_dir, "one")
    for seed, key in ((1, "deleted"), (2, "second")):
        record(tracking, key, save_tiny_model(tmp_path / key, seed=seed), key)
    client.delete_model_version(CANDIDATES, "2")
    client.copy_model_version(f"models:/{CANDIDATES}/3", REVIEWED)
    client.set_registered_model_alias(REVIEWED, "champion", "1")
    client.set_registered_model_tag(REVIEWED, "hand1000.decision.000001", '{"action": "promote"}')
    return tracking


def describe(tracking: Tracking) -> dict[str, object]:
    """Everything that a copy must keep, without the ids that MLflow gives."""
    client = tracking.client
    experiment = client.get_experiment_by_name("hand1000").experiment_id
    runs = client.search_runs([experiment])
    names = {run.info.run_id: run.info.run_name for run in runs}
    own = ("hand1000.copied_from", "hand1000.model_id", "mlflow.parentRunId")
    return {
        "runs": {
            (run.info.run_name, names.get(run.data.tags.get("mlflow.parentRunId"))): (
                run.info.start_time,
                run.info.end_time,
                run.info.status,
                run.data.params,
                {name: value for name, value in run.data.tags.items() if name not in own},
                {
                    name: sorted(
                        (point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)
                    )
                    for name in run.data.metrics
                },
                sorted((used.dataset.name, used.dataset.digest) for used in run.inputs.dataset_inputs),
                sorted((entry.path, entry.file_size) for entry in client.list_artifacts(run.info.run_id)),
            )
            for run in runs
        },
        "logged": {
            model.tags["hand1000.model_digest"]: (
                names[model.source_run_id],
                sorted(
                    (metric.key, metric.value, metric.dataset_name, metric.dataset_digest) for metric in model.metrics
                ),
            )
            for model in client.search_logged_models([experiment])
        },
        "versions": {
            (version.name, int(version.version)): (
                version.description,
                names[version.run_id],
                {name: value for name, value in version.tags.items() if name not in own},
            )
            for version in client.search_model_versions()
        },
        "registered": {
            model.name: (model.tags, {alias: int(number) for alias, number in model.aliases.items()})
            for model in client.search_registered_models()
        },
    }


def test_server_gets_everything_once(source, empty_server, tmp_path, capsys):
    import mlflow.pyfunc

    root = str(source.lock_file.parent)
    assert main(["registry", "copy", root, empty_server]) == 0
    assert "6 runs" in capsys.readouterr().out
    target = connect(registry=empty_server)
    assert describe(target) == describe(source)
    assert main(["registry", "copy", root, empty_server]) == 0
    assert "nothing: everything is there already" in capsys.readouterr().out
    assert describe(target) == describe(source)

    uri = f"models:/{REVIEWED}@champion"
    folder = load_model_folder(uri, registry=empty_server, cache=tmp_path / "cache")
    assert tree_manifest(folder) == tree_manifest(load_model_folder(uri, registry=source))
    (logged,) = [
        model
        for model in target.client.search_logged_models(["1"])
        if model.model_id == target.client.get_model_version(REVIEWED, "1").tags["hand1000.model_id"]
    ]
    description = mlflow.pyfunc.Model.load(str(folder.parent))
    assert (description.model_id, description.run_id) == (logged.model_id, logged.source_run_id)

    # What the source adds later follows; a decision at the target is not overwritten.
    source.client.set_registered_model_alias(REVIEWED, "previous", "1")
    assert str(copy_registry(source, target)) == "1 aliases"
    target.client.set_registered_model_tag(REVIEWED, "hand1000.decision.000002", '{"action": "rollback"}')
    source.client.set_registered_model_tag(REVIEWED, "hand1000.decision.000002", '{"action": "promote"}')
    with pytest.raises(Hand1000Error, match=r"another decision 000002; decide in one of the two only"):
        copy_registry(source, target)


@pytest.mark.parametrize("call", ["log_artifact", "finalize_logged_model", "create_model_version", "log_batch"])
def test_interrupted_copy_is_completed(call, source, tmp_path, monkeypatch):
    target = connect(tmp_path / "target")
    original, calls = getattr(type(target.client), call), []

    def interrupt(*args, **kwargs):
        calls.append(call)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(type(target.client), call, interrupt)
        copy_registry(source, target)
    copy_registry(source, target)
    assert describe(target) == describe(source)
    assert str(copy_registry(source, target)).startswith("nothing")


def test_copy_refuses_other_models_of_the_same_name(source, tmp_path):
    target = connect(tmp_path / "target")
    record(target, "other", save_tiny_model(tmp_path / "other", seed=9), "other")
    with pytest.raises(Hand1000Error, match=f"models:/{CANDIDATES}/1: .* has other weights under this address"):
        copy_registry(source, target)
    with pytest.raises(Hand1000Error, match="source and target are the same"):
        copy_registry(source, connect(source.lock_file.parent))


def test_copy_refuses_damaged_weights(source, tmp_path):
    folder = load_model_folder(f"models:/{REVIEWED}@champion", registry=source)
    (folder / "model_index.json").write_text("{}")
    with pytest.raises(Hand1000Error, match=r"model_index.json: its bytes are not those that were registered"):
        copy_registry(source, connect(tmp_path / "target"))


def test_model_without_weights_stays_as_history(source, tmp_path):
    version = source.client.get_model_version(CANDIDATES, "1")
    location = source.client.get_model_version_download_uri(CANDIDATES, "1")
    assert remove_weights(source, version.tags["hand1000.model_id"], location, [version], lambda: False)
    target = connect(tmp_path / "target")
    copy_registry(source, target)
    assert describe(target) == describe(source)
    assert target.client.get_model_version(CANDIDATES, "1").tags["hand1000.removed"]
    assert load_model_folder(f"models:/{REVIEWED}@champion", registry=target).is_dir()
