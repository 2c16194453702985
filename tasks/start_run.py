"""The first tasks of a workflow: its run, tracked in MLflow or not, and the inputs of its map tasks."""

from collections.abc import Mapping
from typing import Any

from flytekit.types.directory import FlyteDirectory

from hand1000.config.settings import Settings
from hand1000.gestures import parse_gestures, slug
from hand1000.models.backbone import required_features
from hand1000.models.base_model import check_features
from hand1000.storage.digests import digest_json
from hand1000.storage.hub import model_identity
from tasks.context import Artifact, RunContext, TaskResult
from tasks.context import digest as digest_of
from tasks.decorators import cluster_task


def describe_inputs(gesture: str, images: int, data: str, base_model: str, settings: Settings) -> dict[str, Any]:
    """The inputs of a workflow as MLflow records them."""
    return {
        "gesture": gesture,
        "images": images,
        "data": data,
        "base_model": base_model,
        "settings": settings.recipe(),
    }


def make_run_key(inputs: Mapping[str, Any], dataset: FlyteDirectory) -> str:
    """The key of the run of these inputs; see `describe_inputs`.

    A run keeps the first metrics of each task, so that other images at the same address must be another run.
    """
    digest = digest_json([inputs, model_identity(inputs["base_model"]), digest_of(dataset)])
    return f"{slug(parse_gestures(inputs['gesture']))}-{digest[:12]}"


@cluster_task()
def start_run(  # noqa: PLR0913 (Flyte signature)
    gesture: str,
    images: int,
    data: str,
    base_model: str,
    settings: Settings,
    root: str,
    dataset: FlyteDirectory,
) -> RunContext:
    """Get or create the MLflow parent run of these inputs: the same inputs are the same run.

    `dataset` is the artifact of `prepare_data`.
    """
    gestures = parse_gestures(gesture)
    inputs = describe_inputs(gesture, images, data, base_model, settings)
    run = RunContext(root=root, run_id=make_run_key(inputs, dataset))
    if run.find_recorded() and not run.recording.outbox.keys():
        return run
    tracker = run.open_tracker(f"{slug(gestures)}, {images} images, {run.run_id.rpartition('-')[2][:6]}")
    tracker.log_params(inputs)
    tracker.end_abandoned_stages()
    return run


def end_runs(result: TaskResult) -> Artifact:
    """Mark the runs of a task's input `runs` as finished, where no registration ends them."""
    for run in result.inputs["runs"]:
        run.open_recorder().finish()
    return result.artifact


@cluster_task()
def check_inputs(gesture: str, base_model: str, settings: Settings, root: str) -> RunContext:
    """The untracked run of a training's first tasks, after a check of what would fail only later."""
    settings.stage2.check_gestures(parse_gestures(gesture))
    check_features(base_model, required_features(settings))
    return RunContext(root=root)


@cluster_task()
def check_controlnet_inputs(base_model: str, root: str) -> RunContext:
    """The untracked run of a ControlNet's training, after a check of the base model."""
    check_features(base_model, ["ControlNet"])
    return RunContext(root=root)


@cluster_task()
def untracked_run(root: str) -> RunContext:
    """The run of a workflow that MLflow does not track."""
    return RunContext(root=root)


@cluster_task()
def shard_indices(shards: int) -> list[int]:
    """0 to shards - 1, the inputs of the map tasks."""
    return list(range(shards))
