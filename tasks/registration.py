"""Register the model as a candidate, and write the report for its reviewer."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from flytekit.types.directory import FlyteDirectory

from hand1000.config.settings import Settings
from hand1000.gestures import parse_gestures
from hand1000.storage.files import read_json, write_json
from hand1000.storage.hub import model_identity
from tasks.context import Artifact, RunContext, TaskContext, TaskResult, address, digest
from tasks.decorators import artifact_task, config_digest


class RegistrationResult(NamedTuple):
    """The registered version and the folder of its report."""

    model_uri: str
    report: Artifact


def tracking_server(run: RunContext, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The MLflow server and the run in it: each server has a registry of its own."""
    return {"mlflow": run.connect_mlflow().redacted_uri, "run_id": run.run_id}


def finish_registration(result: TaskResult) -> RegistrationResult:
    """Log report and metrics to the parent run, close it, and print what a person does next."""
    from hand1000.reports.model_card import shell_snippet

    registered = read_json(result.folder / "registered.json")
    tracker = result.run.open_tracker()
    tracker.log_file(result.folder / "report.html")
    tracker.log_metrics(registered["metrics"])
    tracker.finish()
    page, model_uri = f"{address(result.artifact)}/report.html", registered["model_uri"]
    print(
        f"registered  {model_uri}\n\nnext\n  open {page}\n  {shell_snippet(model_uri, registered['prompt'])}",
        flush=True,
    )
    return RegistrationResult(model_uri=model_uri, report=result.artifact)


@artifact_task(load=tracking_server, finish=finish_registration, deck="report.html", summary="table.txt")
def register(  # noqa: PLR0913 (Flyte signature)
    context: TaskContext,
    dataset: FlyteDirectory,
    captions: list[FlyteDirectory],
    feature: FlyteDirectory,
    fusion: FlyteDirectory,
    embeddings: list[FlyteDirectory],
    trained: FlyteDirectory,
    model: FlyteDirectory,
    base_images: list[FlyteDirectory],
    tuned_images: list[FlyteDirectory],
    evaluation: FlyteDirectory,
    gesture: str,
    base_model: str,
    settings: Settings,
) -> None:
    """One version in the registry for these weights, however often this runs; `report.html` as artifact and Deck."""
    import shutil

    from hand1000.data.imageset import merge_image_sets
    from hand1000.registry.register import register_candidate
    from hand1000.registry.versions import DATASET, FEATURE, RECIPE
    from hand1000.reports.model_card import render_model_card
    from hand1000.reports.run import FinishedRun
    from hand1000.reports.training import write_report

    finished = FinishedRun(
        gestures=parse_gestures(gesture),
        base_model=base_model,
        base_identity=model_identity(base_model),
        data_digest=digest(dataset),
        run_key=context.run.run_id,
        settings=settings,
        dataset=context.download(dataset),
        captions=context.download_all(captions),
        feature=context.download(feature),
        fusion=context.download(fusion),
        embeddings=context.download_all(embeddings),
        trained=context.download(trained),
        model=context.download(model),
        base_images=merge_image_sets(context.download_all(base_images), context.scratch_dir("base")),
        tuned_images=merge_image_sets(context.download_all(tuned_images), context.scratch_dir("tuned")),
        evaluation=context.download(evaluation),
    )
    tracker = context.run.open_tracker()
    version = register_candidate(
        tracker.child_run("register"),
        finished.model,
        gestures=finished.gestures,
        metrics=finished.candidate_metrics,
        card=render_model_card(finished),
        tags={DATASET: digest(dataset), FEATURE: digest(feature), RECIPE: config_digest(settings, base_model)},
    )
    report = context.output_dir / "report.html"
    write_report(report, finished, model_uri=version.uri, seconds=tracker.stage_seconds())
    registered = {
        "model_uri": version.uri,
        "prompt": finished.example_prompt,
        "metrics": finished.tracked_metrics,
        "gesture_accuracy": finished.gesture_accuracies,
    }
    write_json(context.output_dir / "registered.json", registered)
    shutil.copy(finished.evaluation / "table.txt", context.output_dir)
