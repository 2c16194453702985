"""MLflow as it is: an embedded sqlite file, and a server of its own on the loopback."""

import base64
import io
import math
import multiprocessing
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

from hand1000.core.errors import Hand1000Error
from hand1000.gestures import PHRASES
from hand1000.registry.connection import connect, redact_userinfo
from hand1000.registry.load import load_model_folder
from hand1000.registry.register import RegisteredVersion, register_candidate
from hand1000.registry.tracking import RunTracker
from tests.support.mlflow_server import free_port, mlflow_server, serving
from tests.support.tiny_models import WIDTH, save_tiny_model

HISTORY = [{"step": step, "loss": 1 / (step + 1), "grad_norm": float(step)} for step in range(600)]
CARD = "# hand1000-call\n\n| measure | base | tuned |\n| --- | --- | --- |\n| KID | 0.2 | 0.1 |\n"


@pytest.fixture(autouse=True)
def no_server_of_the_environment(monkeypatch, tmp_path):
    # Set first, so that what the code under test puts into these is undone as well.
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def migrated(tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return Path(connect(tmp_path_factory.mktemp("migrated")).uri.removeprefix("sqlite:///"))


@pytest.fixture
def runs(tmp_path, migrated) -> Path:
    """A folder with an embedded MLflow that is empty; migrating a fresh one takes seconds."""
    (tmp_path / "runs").mkdir()
    shutil.copy(migrated, tmp_path / "runs" / migrated.name)
    return tmp_path / "runs"


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as uri:
        yield uri


@pytest.fixture(params=["embedded", "server"])
def tracking(request, runs, monkeypatch):
    if request.param == "server":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", request.getfixturevalue("server"))
    return connect(runs)


def record_and_register(tracking, model_dir: Path, key: str, gesture: str = "call") -> RegisteredVersion:
    """What the tasks of a run do, as a retry would do it again from the start."""
    tracker = RunTracker("hand1000 tests", key, tracking)
    tracker.log_params({"seed": 0, "stage2": {"lambda_": 0.7, "embedding_steps": 10}})
    stage = tracker.child_run("stage3")
    stage.log_history(HISTORY)
    stage.log_dataset("sample", "ab" * 32, "artifacts/data", counts={"train": 8, "test": 2})
    stage.log_seconds("train", 12.5)
    version = register_candidate(
        tracker, model_dir, gestures=(gesture,), metrics={"kid": 0.1, "hand_conf": None}, card=CARD
    )
    stage.finish()
    tracker.finish()
    return version


def test_a_retry_adds_nothing(tracking, model_dir):
    gesture = "ok" if tracking.lock_file else "call"
    first = record_and_register(tracking, model_dir, "run-1", gesture)
    second = record_and_register(connect(Path(tracking.lock_file or "x").parent), model_dir, "run-1", gesture)

    name = f"hand1000-{gesture}-candidates"
    assert first == second and first.uri == f"models:/{name}/1"
    client = tracking.client
    runs = client.search_runs([RunTracker("hand1000 tests", "run-1", tracking).experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert len(parents) == len(children) == 1
    assert children[0].data.tags["mlflow.parentRunId"] == parents[0].info.run_id
    history = client.get_metric_history(children[0].info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(row["step"], row["loss"]) for row in HISTORY]
    assert len(client.get_metric_history(children[0].info.run_id, "seconds.train")) == 1
    assert [(entry.dataset.name, entry.dataset.digest) for entry in children[0].inputs.dataset_inputs] == [
        ("sample", ("ab" * 32)[:36])
    ]
    assert len(parents[0].outputs.model_outputs) == 1
    assert parents[0].data.params == {"seed": "0", "stage2.lambda_": "0.7", "stage2.embedding_steps": "10"}

    versions = client.search_model_versions(f"name = '{name}'")
    assert len(versions) == 1
    assert versions[0].description == CARD
    assert versions[0].tags["metric.kid"] == "0.1" and "metric.hand_conf" not in versions[0].tags
    assert versions[0].run_id == parents[0].info.run_id


def test_a_model_is_registered_by_the_names_of_all_its_gestures(runs, model_dir):
    tracking = connect(runs)
    tracker = RunTracker("e", "call-four", tracking)
    metrics = {"gesture_accuracy.four": 0.5}
    version = register_candidate(tracker, model_dir, gestures=("call", "four"), metrics=metrics, card=CARD)
    assert version.uri == "models:/hand1000-call-four-candidates/1"
    tags = tracking.client.get_model_version(version.name, "1").tags
    assert (tags["hand1000.gesture"], tags["metric.gesture_accuracy.four"]) == ("call,four", "0.5")
    everything = register_candidate(tracker, model_dir, gestures=tuple(PHRASES), metrics={}, card=CARD)
    assert everything.name.startswith("hand1000-33-gestures-") and everything.version == 1


def test_other_weights_are_another_version(tmp_path, runs, model_dir):
    tracking = connect(runs)
    assert record_and_register(tracking, model_dir, "run-1").version == 1
    other = save_tiny_model(tmp_path / "other", seed=1)
    assert record_and_register(tracking, other, "run-2").version == 2
    assert record_and_register(tracking, model_dir, "run-3").version == 1


@pytest.mark.parametrize("call", ["log_model_artifacts", "finalize_logged_model", "create_model_version"])
def test_registration_goes_on_where_it_was_cut(call, runs, model_dir, monkeypatch):
    tracking = connect(runs)
    tracker = RunTracker("e", "k", tracking)

    def cut(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(type(tracking.client), call, cut)
        register_candidate(tracker, model_dir, gestures=("call",), metrics={}, card=CARD)
    version = register_candidate(tracker, model_dir, gestures=("call",), metrics={}, card=CARD)
    assert version.version == 1
    assert len(tracking.client.search_logged_models([tracker.experiment_id])) == 1
    assert len(tracking.client.get_run(tracker.run_id).outputs.model_outputs) == 1


def test_the_weights_of_a_registered_version_load(tracking, model_dir):
    gesture = "palm" if tracking.lock_file else "mute"
    version = record_and_register(tracking, model_dir, "run-1", gesture)
    folder = load_model_folder(version.uri, tracking=tracking)
    assert (folder / "model_index.json").read_bytes() == (model_dir / "model_index.json").read_bytes()
    assert load_model_folder(version.uri, tracking=tracking) == folder
    tracking.client.set_registered_model_alias(version.name, "best", "1")
    assert load_model_folder(f"models:/{version.name}@best", tracking=tracking) == folder


def test_the_registered_model_draws(runs, model_dir, monkeypatch):
    import mlflow.pyfunc
    from PIL import Image

    tracking = connect(runs)
    version = record_and_register(tracking, model_dir, "run-1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri)
    model = mlflow.pyfunc.load_model(version.uri)
    prompts = pd.DataFrame({"prompt": ["one", "two", "two"]}, index=[7, 8, 9])
    first = model.predict(prompts, params={"seed": 5})
    assert list(first.columns) == ["image"] and list(first.index) == [7, 8, 9]
    assert Image.open(io.BytesIO(base64.b64decode(first["image"][7]))).size == (32, 32)
    assert model.predict(prompts, params={"seed": 5}).equals(first)
    assert first["image"][8] != first["image"][9]
    assert model.predict(prompts, params={"seed": 6})["image"][8] == first["image"][9]
    assert model.predict(prompts, params={"seed": 5, "guidance_scale": 9.0})["image"][7] != first["image"][7]
    defaults = {param.name: param.default for param in model.metadata.get_params_schema().params}
    assert defaults == {
        "gesture": "",
        "seed": 0,
        "mu": 0.6,
        "guidance_scale": 2.0,
        "autoguidance_scale": 1.0,
        "autoguidance_interval": [0.0, 1.0],
        "eta": 0.5,
        "num_inference_steps": 2,
    }


def test_mlflow_serves_the_registered_model(runs, model_dir, tmp_path, monkeypatch):
    import json
    import sys
    import urllib.request

    from PIL import Image

    tracking = connect(runs)
    version = record_and_register(tracking, model_dir, "run-1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri)
    address = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", version.uri, "--env-manager", "local"]
    with serving([*command, "--port", address.rpartition(":")[2]], f"{address}/ping", tmp_path / "log"):
        body = {"dataframe_records": [{"prompt": "a hand"}], "params": {"seed": 3, "num_inference_steps": 1}}
        body["params"]["autoguidance_interval"] = [0.25, 0.75]
        request = urllib.request.Request(
            f"{address}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            (row,) = json.load(answer)["predictions"]
    assert Image.open(io.BytesIO(base64.b64decode(row["image"]))).size == (32, 32)


@pytest.mark.parametrize(
    ("prompts", "params", "fault"),
    [
        (["a"], {"mu": 1.5}, "mu: 1.5 is out of range"),
        (["a"], {"gesture": "like"}, "gesture 'like': this model knows four, ok only"),
        (["a"], {"gesture": ""}, "contains the phrase of none of this model's gestures, four, ok"),
        (["a"], {"guidance_scale": math.nan}, "guidance_scale"),
        (["a"], {"num_inference_steps": 0}, "num_inference_steps: 0"),
        (["a"], {"autoguidance_interval": [0.5, 0.5]}, "autoguidance_interval: .* the lower first"),
        (["a"], {"seed": -1}, "seed: -1"),
        (["a", " "], {}, "prompt 1: give a text"),
        (["a" * 2001], {}, "prompt 0: give a text"),
        (["a"] * 257, {}, "257 prompts"),
    ],
)
def test_the_registered_model_refuses(model_dir, tiny_python_model, prompts, params, fault):
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match=fault) as raised:
        tiny_python_model.predict(None, pd.DataFrame({"prompt": prompts}), params)
    assert raised.value.get_http_status_code() == 400


@pytest.fixture(scope="session")
def tiny_python_model(model_dir):
    from hand1000.models.fusion import GestureFusion
    from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline
    from hand1000.registry.model_code import RegisteredHand1000

    model = RegisteredHand1000()
    model.pipeline = Hand1000Pipeline.from_pretrained(model_dir)
    model.pipeline.register_modules(fusion=GestureFusion(WIDTH, ("four", "ok")))
    return model


def test_a_changed_parameter_is_an_error(runs):
    tracker = RunTracker("e", "k", connect(runs))
    tracker.log_params({"seed": 1})
    tracker.log_params({"seed": 1, "steps": 5})
    with pytest.raises(Hand1000Error, match="run k: seed was recorded as '1', now '2'"):
        tracker.log_params({"seed": 2})


def test_a_killed_run_is_resumed_and_a_finished_one_reopened(runs):
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


def test_mlflow_drops_an_equal_point_and_keeps_an_unequal_one(runs):
    # Why points carry a fixed time and why steps that are known are skipped all the same.
    from mlflow.entities import Metric

    run = RunTracker("e", "k", connect(runs))
    for value in (1.0, 1.0, 2.0):
        run.tracking.client.log_batch(run.run_id, metrics=[Metric("loss", value, timestamp=3, step=3)])
    assert len(run.tracking.client.get_metric_history(run.run_id, "loss")) == 2


def test_values_that_are_no_number_are_left_out(runs):
    run = RunTracker("e", "k", connect(runs))
    run.log_metrics({"kid": -0.01, "fid": None, "hand": math.nan})
    assert run.tracking.client.get_run(run.run_id).data.metrics == {"kid": -0.01}


def test_images_and_files(tmp_path, runs):
    from PIL import Image

    run = RunTracker("e", "k", connect(runs))
    for _ in range(2):
        run.log_image("grid", Image.new("RGB", (4, 4), "red"))
        (tmp_path / "report.html").write_text("<p>hello")
        run.log_file(tmp_path / "report.html", "report")
    client = run.tracking.client
    assert [entry.path for entry in client.list_artifacts(run.run_id, "images")] == ["images/grid.png"]
    assert [entry.path for entry in client.list_artifacts(run.run_id, "report")] == ["report/report.html"]


def open_and_record(folder: Path, barrier, results) -> None:
    barrier.wait()
    tracker = RunTracker("e", "shared", connect(folder))
    tracker.child_run("train").log_history(HISTORY[:20])
    results.put((tracker.run_id, tracker.child_run("train").run_id))


def test_processes_that_start_together_share_one_fresh_database(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    processes = [context.Process(target=open_and_record, args=(tmp_path, barrier, results)) for _ in range(2)]
    for process in processes:
        process.start()
    found = {results.get(timeout=60) for _ in processes}
    for process in processes:
        process.join(timeout=60)
    assert len(found) == 1
    client = connect(tmp_path).client
    assert len(client.search_runs([RunTracker("e", "shared", connect(tmp_path)).experiment_id])) == 2
    assert len(client.get_metric_history(found.pop()[1], "loss")) == 20


def test_a_silent_server_is_named_without_its_password(tmp_path, monkeypatch):
    port = free_port()
    monkeypatch.setattr("hand1000.registry.connection._PROBE_DELAYS", ())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:s3cret@127.0.0.1:{port}")
    with pytest.raises(Hand1000Error, match=f"http://127.0.0.1:{port}: no MLflow server answers") as raised:
        connect(tmp_path)
    assert "s3cret" not in str(raised.value) and "\n" not in str(raised.value)


def test_the_password_of_a_server_goes_nowhere_but_to_mlflow(server, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.replace("http://", "http://me:s3%3Acret@"))
    tracking = connect(tmp_path)
    assert tracking.uri == tracking.redacted_uri == os.environ["MLFLOW_TRACKING_URI"] == server
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "s3:cret"
    assert not (tmp_path / "mlflow.db").exists()
    assert redact_userinfo("postgresql://u:p@db/mlflow") == "postgresql://db/mlflow"
    with pytest.raises(Hand1000Error, match="MLflow at http://127.0.0.1"), tracking.readable_errors():
        tracking.client.get_run("0" * 32)


def test_a_deleted_experiment_and_a_malformed_key_are_errors(runs):
    tracking = connect(runs)
    experiment = RunTracker("e", "k", tracking).experiment_id
    tracking.client.delete_experiment(experiment)
    with pytest.raises(Hand1000Error, match="experiment 'e' is deleted"):
        RunTracker("e", "k", tracking)
    with pytest.raises(Hand1000Error, match="run key"):
        RunTracker("f", "k' OR 1=1", tracking)


def test_a_model_in_s3_loads(s3_root, model_dir):
    from hand1000.storage.digests import tree_manifest
    from hand1000.storage.s3 import S3Backend

    S3Backend(s3_root).put_tree(model_dir, "model", tree_manifest(model_dir))
    folder = load_model_folder(f"{s3_root}/model")
    assert tree_manifest(folder) == tree_manifest(model_dir)
    with pytest.raises(Hand1000Error, match="nothing: "):
        load_model_folder(f"{s3_root}/nothing")


def test_addresses_that_lead_nowhere(tmp_path, runs, model_dir, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Hand1000Error, match="no MLflow here"):
        load_model_folder("models:/hand1000-call-candidates/1")
    runs.rename("artifacts")
    tracking = connect(Path("artifacts"))
    with pytest.raises(Hand1000Error, match="no such model"):
        load_model_folder("models:/hand1000-call-candidates/1", tracking=tracking)
    record_and_register(tracking, model_dir, "k")
    assert load_model_folder("models:/hand1000-call-candidates/1").name == "weights"
    for uri in ("models:/hand1000-call-candidates/2", "models:/hand1000-call-candidates@champion"):
        with pytest.raises(Hand1000Error, match="has versions: 1; aliases: none"):
            load_model_folder(uri, tracking=tracking)
    with pytest.raises(Hand1000Error, match="write models:/NAME/VERSION"):
        load_model_folder("models:/hand1000-call-candidates/latest", tracking=tracking)
    with pytest.raises(Hand1000Error, match="no model there"):
        load_model_folder(str(tmp_path))
    assert load_model_folder(str(model_dir)) == model_dir
    with pytest.raises(Hand1000Error, match="not a model folder"):
        register_candidate(RunTracker("e", "k", tracking), tmp_path, gestures=("call",), metrics={}, card=CARD)
