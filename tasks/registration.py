"""Evaluate the gates, register the model as a candidate, and write the report for its reviewer."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from flytekit.types.directory import FlyteDirectory

from hand1000.config.settings import Settings
from hand1000.core.errors import Hand1000Error
from hand1000.gestures import parse_gestures, slug
from hand1000.storage.files import read_json, write_json
from hand1000.storage.hub import model_identity
from tasks.context import Artifact, RunContext, TaskContext, TaskResult, address, digest, portable_address
from tasks.decorators import artifact_task, config_digest

if TYPE_CHECKING:
    from hand1000.evaluation.drift import Drift
    from hand1000.registry.tracking import RunTracker
    from hand1000.reports.run import FinishedRun

_MAX_TAG = 1000


class RegistrationResult(NamedTuple):
    """The result of a run.

    `outcome` is `passed`, `failed` or, in a retraining, `unchanged`, with the reason; `model_uri` is the version to
    review or to use, and `report` the folder of `report.html`.
    """

    outcome: str
    model_uri: str
    report: Artifact


def load_registry(run: RunContext, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The run in MLflow, whose id no other registry has, and what the champion was trained on."""
    from hand1000.registry.versions import TRAINED_ON

    champion = run.find_version(inputs["champion"]) if inputs["champion"] else None
    trained_on = [[kind, champion.tags.get(tag, "")] for tag, kind in TRAINED_ON.items()] if champion else []
    recorded = run.find_recorded()
    return {"run": (recorded or run.open_tracker()).run_id, "champion_trained_on": trained_on}


def finish_registration(result: TaskResult) -> RegistrationResult:
    """Log the results to the parent run, close it, and print what a person does next.

    Raises:
        Hand1000Error: A gate failed, and the settings ask for a failed run.
    """
    from hand1000.evaluation.gate_report import GateReport
    from hand1000.registry.connection import locate_embedded, registry_address
    from hand1000.registry.recorded import note_recorded_run
    from hand1000.registry.versions import ENDED
    from hand1000.reports.snippets import shell_snippet

    registered = read_json(result.folder / "registered.json")
    gates = GateReport.model_validate(read_json(result.folder / "gates.json"))
    fails = gates.verdict == "failed" and result.inputs["settings"].gates.on_failed_gate == "fail"
    recorded, tracking = result.run.find_recorded(), locate_embedded(result.run.mlflow_folder)
    if not (tracking and recorded and recorded.holds("register", "all", portable_address(result.artifact))):
        tracker = result.run.open_tracker()
        log_results(result, registered, tracker)
        tracker.set_tags({ENDED: "FAILED" if fails else "FINISHED"})
        tracker.finish("FAILED" if fails else "FINISHED")
        tracking = tracker.tracking
        note_recorded_run(tracking, result.run.run_id, parse_gestures(result.inputs["gesture"]))
    page, model_uri = f"{address(result.artifact)}/report.html", registered["model_uri"]
    print(f"gates       {gates.summary}\nregistered  {model_uri}", flush=True)
    if fails:
        raise Hand1000Error(
            f"{model_uri}: {gates.summary}; {page} has the details; set gates.on_failed_gate to register to end such a "
            "run without an error"
        )
    snippet = shell_snippet(model_uri, registered["prompt"], registry_address(tracking))
    print(f"\nnext\n  open {shlex.quote(page)}\n  {snippet}", flush=True)
    return RegistrationResult(outcome=gates.summary, model_uri=model_uri, report=result.artifact)


def log_results(result: TaskResult, registered: Mapping[str, Any], tracker: "RunTracker") -> None:
    """Log report, gates, images, datasets and metrics to the run; the metrics also to the logged model."""
    from hand1000.registry.source import LoggedDataset

    for name in ("report.html", "gates.json"):
        tracker.log_file(result.folder / name)
    for path in sorted((result.folder / "images").glob("*.png")):
        tracker.log_file(path, "images")
    dataset, gesture = result.inputs["dataset"], slug(parse_gestures(result.inputs["gesture"]))
    train, test = (
        LoggedDataset(
            f"{gesture}, {split}", digest(dataset), portable_address(dataset), registered["num_images"][split]
        )
        for split in ("train", "test")
    )
    tracker.log_dataset(train, "training")
    tracker.log_dataset(test, "testing")
    tracker.log_metrics(registered["metrics"])
    if registered["model_id"]:
        tracker.log_model_metrics(registered["model_id"], registered["metrics"], test)


@artifact_task(load=load_registry, finish=finish_registration, deck="report.html", summary="table.txt")
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
    champion_images: list[FlyteDirectory],
    tuned_images: list[FlyteDirectory],
    general_images: FlyteDirectory,
    evaluation: FlyteDirectory,
    champion: str,
    gesture: str,
    base_model: str,
    settings: Settings,
) -> None:
    """One version in the registry for these weights, however often this runs; `report.html` as artifact and Deck.

    `gates.json` has the verdict, which is also a tag of the version.
    """
    from hand1000.data.imageset import merge_image_sets
    from hand1000.evaluation.gates import evaluate_gates
    from hand1000.evaluation.paired_metrics import PairedMetrics
    from hand1000.registry.versions import COMPARED_WITH, DATASET, FEATURE, GATES, RECIPE, VERDICT
    from hand1000.reports.run import FinishedRun

    def merge(shards: list[FlyteDirectory], name: str) -> Path:
        return merge_image_sets(context.download_all(shards), context.scratch_dir(name))

    evaluated = context.download(evaluation)
    paired = PairedMetrics.model_validate(read_json(evaluated / "paired.json"))
    gates = evaluate_gates(paired, settings.gates, champion)
    drift, drift_note = measure_drift_since_champion(context, dataset, feature)
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
        model=context.download(model, recheck=True),  # The registry takes the bytes of now for those of ever.
        base_images=merge(base_images, "base"),
        tuned_images=merge(tuned_images, "tuned"),
        evaluation=evaluated,
        gates=gates,
        champion=champion,
        champion_images=merge(champion_images, "champion") if champion_images else None,
        general_images=context.download(general_images) if settings.evaluation.general_images else None,
        drift=drift,
        drift_note=drift_note,
    )
    tags = {
        # MLflow's page shows them in this order.
        VERDICT: gates.verdict,
        GATES: gates.summary[:_MAX_TAG],
        COMPARED_WITH: champion,
        DATASET: digest(dataset),
        FEATURE: digest(feature),
        RECIPE: config_digest(settings, base_model),
    }
    register_finished_run(context, finished, tags)


def register_finished_run(context: TaskContext, finished: "FinishedRun", tags: Mapping[str, str]) -> None:
    """Register the model with `tags`, and write what the artifact holds of it."""
    import shutil

    from hand1000.registry.connection import registry_address
    from hand1000.registry.load import find_version
    from hand1000.registry.register import register_candidate
    from hand1000.registry.review import review_commands
    from hand1000.reports.image_grids import write_image_grids
    from hand1000.reports.model_card import render_model_card
    from hand1000.reports.training import ReportedCandidate, write_report

    tracker, champion, gates = context.run.open_tracker(), finished.champion, finished.gates
    version = register_candidate(
        tracker,
        finished.model,
        gestures=finished.gestures,
        metrics=finished.candidate_metrics,
        card=render_model_card(finished, f"/get-artifact?path=images/random.png&run_uuid={tracker.run_id}"),
        export=finished.export_metrics,
        tags=tags,
    )
    report = context.output_dir / "report.html"
    compared = find_version(champion, registry=tracker.tracking).version if champion else None
    commands = review_commands(version.uri, compared, tracker.tracking, verdict=gates.verdict)
    candidate = ReportedCandidate(
        version.uri, commands, registry_address(tracker.tracking), tracker.stage_seconds(), tracker.stage_peaks()
    )
    write_report(report, finished, candidate)
    registered = {
        "model_uri": version.uri,
        "model_id": version.model_id,
        "prompt": finished.example_prompt,
        "metrics": finished.tracked_metrics,
        "num_images": {"train": finished.preparation.train, "test": finished.preparation.test},
        "gesture_accuracy": finished.gesture_accuracies,
    }
    write_json(context.output_dir / "registered.json", registered)
    write_json(context.output_dir / "gates.json", gates)
    write_image_grids(context.output_dir / "images", finished)
    if finished.drift:
        write_json(context.output_dir / "drift.json", finished.drift)
    shutil.copy(finished.evaluation / "table.txt", context.output_dir)


def measure_drift_since_champion(
    context: TaskContext, dataset: FlyteDirectory, feature: FlyteDirectory
) -> "tuple[Drift | None, str]":
    """The drift of the training data since the champion; without one, or without its data, None and the reason."""
    from hand1000.evaluation.drift import measure_drift
    from hand1000.hands.stage1 import load_features

    trained_on = context.loaded["champion_trained_on"]
    if not trained_on:
        return None, "there is no champion to compare with"
    store = context.run.open_store()
    try:
        old_data, old_feature = (
            store.fetch(f"{store.root}/artifacts/{kind}/{tagged_digest}") for kind, tagged_digest in trained_on
        )
    except Hand1000Error as error:
        return None, f"what the champion was trained on is not kept any more: {error}"
    new_data, new_feature = context.download(dataset), context.download(feature)
    drift = measure_drift(
        old_data / "train", new_data / "train", load_features(old_feature), load_features(new_feature)
    )
    return drift, ""
