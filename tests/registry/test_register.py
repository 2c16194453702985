"""Registration of candidates, once however often a task runs."""

from pathlib import Path

import pytest

from hand1000.export.measured import EXPORT_METRICS, read_export_metrics
from hand1000.gestures import PHRASES
from hand1000.registry.connection import connect
from hand1000.registry.load import load_model_folder
from hand1000.registry.register import register_candidate
from hand1000.registry.review import list_candidates, reject
from hand1000.registry.tracking import RunTracker
from hand1000.registry.versions import VERDICT
from tests.support.finished_run import EXPORTED
from tests.support.registration import CARD, HISTORY, record_and_register
from tests.support.tiny_models import save_tiny_model


def test_retry_records_and_registers_nothing_twice(tracking, model_dir):
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
    assert len(parents[0].outputs.model_outputs) == 1
    assert parents[0].data.params == {"seed": "0", "stage2.lambda_": "0.7", "stage2.embedding_steps": "10"}

    versions = client.search_model_versions(f"name = '{name}'")
    assert len(versions) == 1
    assert versions[0].description == CARD
    assert versions[0].tags["metric.kid"] == "0.1" and "metric.hand_conf" not in versions[0].tags
    assert versions[0].run_id == parents[0].info.run_id


def test_model_name_contains_all_gestures(runs, model_dir):
    tracking = connect(runs)
    tracker = RunTracker("e", "call-four", tracking)
    metrics = {"gesture_accuracy.four": 0.5}
    version = register_candidate(tracker, model_dir, gestures=("call", "four"), metrics=metrics, card=CARD)
    assert version.uri == "models:/hand1000-call-four-candidates/1"
    tags = tracking.client.get_model_version(version.name, "1").tags
    assert (tags["hand1000.gesture"], tags["metric.gesture_accuracy.four"]) == ("call,four", "0.5")
    everything = register_candidate(tracker, model_dir, gestures=tuple(PHRASES), metrics={}, card=CARD)
    assert everything.name.startswith("hand1000-33-gestures-") and everything.version == 1


def test_what_an_export_loses_is_beside_the_weights(tmp_path, runs, model_dir):
    tracker = RunTracker("e", "k", connect(runs))
    version = register_candidate(tracker, model_dir, gestures=("call",), metrics={}, card=CARD, export=EXPORTED)
    weights = load_model_folder(version.uri, registry=tracker.tracking)
    assert read_export_metrics(weights) == EXPORTED
    assert read_export_metrics(model_dir) is None
    (tmp_path / EXPORT_METRICS).write_text("of another program")
    assert read_export_metrics(tmp_path / "model") is None


def test_other_weights_are_another_version(tmp_path, runs, model_dir):
    tracking = connect(runs)
    assert record_and_register(tracking, model_dir, "run-1").version == 1
    other = save_tiny_model(tmp_path / "other", seed=1)
    assert record_and_register(tracking, other, "run-2").version == 2
    assert record_and_register(tracking, model_dir, "run-3").version == 1


def test_tags_of_a_decided_candidate_stay(runs, model_dir):
    tracking = connect(runs)
    tracker = RunTracker("e", "everything", tracking)

    def register(verdict: str) -> str:
        tags = {VERDICT: verdict}
        version = register_candidate(tracker, model_dir, gestures=tuple(PHRASES), metrics={}, card=CARD, tags=tags)
        assert version.version == 1
        return tracking.client.get_model_version(version.name, "1").tags[VERDICT]

    assert [register(verdict) for verdict in ("failed", "passed", "failed")] == ["failed", "passed", "failed"]
    (candidate,) = list_candidates(tracking, ",".join(PHRASES))
    reject(tracking, candidate.version.uri, who="Ann", why="The hands have six fingers.")
    assert register("passed") == "failed"


@pytest.mark.parametrize("call", ["log_model_artifacts", "finalize_logged_model", "create_model_version"])
def test_interrupted_registration_is_resumed(call, runs, model_dir, monkeypatch):
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


def test_second_of_two_registrations_at_once_is_withdrawn(server, tmp_path, monkeypatch):
    """A server has no lock, so both find nothing."""
    from hand1000.registry import register

    tracking = connect(registry=server)
    model = save_tiny_model(tmp_path / "model", seed=5)
    create_version, others = register._create_version, []

    def create_after_another(run, *arguments):
        if not others:
            others.append(None)
            others[0] = record_and_register(connect(registry=server), model, "run-1", "fist")
        return create_version(run, *arguments)

    monkeypatch.setattr(register, "_create_version", create_after_another)
    tracker = RunTracker("at once", "second", tracking)
    version = register_candidate(tracker, model, gestures=("fist",), metrics={}, card=CARD)
    assert version == others[0] and version.version == 1
    assert len(tracking.client.search_model_versions(f"name = '{version.name}'")) == 1
    assert tracking.client.search_logged_models([tracker.experiment_id]) == []
    (output,) = tracking.client.get_run(tracker.run_id).outputs.model_outputs
    assert output.model_id == version.model_id


def test_registered_model_has_an_input_example(runs, model_dir):
    from mlflow.models import Model

    tracking = connect(runs)
    folder = load_model_folder(record_and_register(tracking, model_dir, "k").uri, registry=tracking).parent
    description = Model.load(str(folder))
    example = description.load_input_example(str(folder))
    assert list(example["prompt"]) == [f"a photo of a left hand in front of a blue wall, {PHRASES['call']}"]
    assert description.load_input_example_params(str(folder)) == {"seed": 0}
    assert {param.name for param in description.get_params_schema().params} >= {"seed", "gesture", "mu"}
