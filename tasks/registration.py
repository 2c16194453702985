"""Register the model as a candidate, and write the report that its reviewer reads."""

from pathlib import Path
from typing import NamedTuple

from flytekit import Deck
from flytekit.types.directory import FlyteDirectory

from hand1000.config.settings import Settings
from tasks.context import Artifact, TaskContext, address, cluster_task, config_digest, digest, open_tracker, run_cached


class RegistrationResult(NamedTuple):
    """The registered version and the folder of its report."""

    model_uri: str
    report: Artifact


@cluster_task(enable_deck=True)
def register(
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
    run: str,
    root: str,
) -> RegistrationResult:
    """One version in the registry for these weights, however often this runs; `report.html` as artifact and Deck."""
    import datetime

    import yaml

    from hand1000.data.join import merge_image_sets
    from hand1000.gestures import parse_gestures
    from hand1000.registry.champion import DATASET, FEATURE, RECIPE
    from hand1000.registry.register import register_candidate
    from hand1000.reports.model_card import render_model_card
    from hand1000.reports.summary import (
        RunFacts,
        RunFolders,
        build_card_content,
        build_report_content,
        choose_example_prompt,
        read_metric_rows,
        read_metrics,
    )
    from hand1000.reports.training import write_report
    from hand1000.storage.artifacts import open_store
    from hand1000.storage.files import read_json, write_json
    from hand1000.storage.hub import model_identity

    gestures = parse_gestures(gesture)
    facts = RunFacts(gestures, base_model, model_identity(base_model), digest(dataset), run, settings)
    store = open_store(root)
    tracker = open_tracker(run, root)
    stage = tracker.stage("register")

    def folders(work: TaskContext) -> RunFolders:
        return RunFolders(
            dataset=work.read(dataset),
            captions=[work.read(part) for part in captions],
            feature=work.read(feature),
            fusion=work.read(fusion),
            embeddings=[work.read(part) for part in embeddings],
            trained=work.read(trained),
            model=work.read(model),
            base_images=merge_image_sets([work.read(part) for part in base_images], work.out.with_name("base")),
            tuned_images=merge_image_sets([work.read(part) for part in tuned_images], work.out.with_name("tuned")),
            evaluation=work.read(evaluation),
        )

    def build(work: TaskContext) -> None:
        here = folders(work)
        rows = read_metric_rows(here.evaluation)
        base, tuned = (side.by_gesture for side in read_metrics(here.evaluation))
        accuracies = {
            one: {"base": base[one].gesture_accuracy, "tuned": tuned[one].gesture_accuracy} for one in gestures
        }
        metrics = {row.name: row.tuned for row in rows}
        if len(gestures) > 1:
            metrics |= {f"gesture_accuracy.{one}": values["tuned"] for one, values in accuracies.items()}
        version = register_candidate(
            stage,
            here.model,
            gestures=gestures,
            metrics=metrics,
            card=render_model_card(build_card_content(facts, here)),
            tags={
                DATASET: digest(dataset),
                FEATURE: digest(feature),
                RECIPE: config_digest(settings, base_model),
            },
        )
        content = build_report_content(
            facts,
            here,
            model_uri=version.uri,
            date=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
            seconds=tracker.stage_seconds(),
            settings_yaml=yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False),
        )
        write_report(work.out / "report.html", content)
        measures = {row.name: {"base": row.base, "tuned": row.tuned} for row in rows}
        facts_of_version = {
            "model_uri": version.uri,
            "prompt": choose_example_prompt(here),
            "measures": measures,
            "gesture_accuracy": accuracies,
        }
        write_json(work.out / "registered.json", facts_of_version)

    report = run_cached(
        "register",
        root=root,
        run=run,
        build=build,
        inputs={
            "mlflow": tracker.tracking.public_uri,
            "trained": trained,
            "model": model,
            "evaluation": evaluation,
            "dataset": dataset,
            "captions": captions,
            "feature": feature,
            "base_images": base_images,
            "tuned_images": tuned_images,
            "run": run,
        },
    )
    folder = store.fetch(address(report))
    registered = read_json(folder / "registered.json")
    tracker.log_file(folder / "report.html")
    measured = store.fetch(address(evaluation))
    for side in ("base", "tuned"):
        tracker.log_metrics({f"{side}.{name}": values[side] for name, values in registered["measures"].items()})
        if len(gestures) > 1:
            accuracies = registered["gesture_accuracy"]
            tracker.log_metrics({f"{side}.gesture_accuracy.{one}": accuracies[one][side] for one in gestures})
    tracker.finish()
    page = f"{address(report)}/report.html"
    print_summary(registered["model_uri"], registered["prompt"], report=page, table=measured / "table.txt")
    Deck("report", (folder / "report.html").read_text())
    return RegistrationResult(model_uri=registered["model_uri"], report=report)


def print_summary(model_uri: str, prompt: str, *, report: str, table: Path) -> None:
    """The end of a run as a person reads it."""
    from hand1000.reports.model_card import shell_snippet

    print(
        f"\n{table.read_text()}\nreport      {report}\nregistered  {model_uri}\n\nnext\n"
        f"  open {report}\n  {shell_snippet(model_uri, prompt)}"
    )
