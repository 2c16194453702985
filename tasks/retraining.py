"""Scheduled retraining: detect whether there is anything to learn, and evaluate the gates of what was learned."""

import datetime
from collections.abc import Mapping
from typing import Any, NamedTuple

from flytekit import Deck
from flytekit.types.directory import FlyteDirectory

from hand1000.config.gates import GateSettings
from hand1000.config.settings import Settings
from hand1000.core.errors import Hand1000Error
from hand1000.gestures import parse_gestures
from hand1000.storage.files import write_json, write_text
from tasks.context import RunContext, TaskContext, TaskResult, digest
from tasks.decorators import artifact_task, cluster_task, config_digest

KINDS = {"hand1000.dataset": "prepare_data", "hand1000.feature": "compute_gesture_feature"}
"""The artifact kinds that the tags of a version name by their digests."""


class ChangeReport(NamedTuple):
    """Whether there is anything to learn, and since which version; "" where there is none."""

    changed: bool
    champion: str


class RetrainResult(NamedTuple):
    """The result of a retraining.

    `outcome` is `unchanged`, `passed` or `failed` with the reason; `model_uri` is the version to use or to review.
    """

    outcome: str
    model_uri: str
    report: FlyteDirectory


@cluster_task()
def detect_changes(
    dataset: FlyteDirectory,
    gesture: str,
    base_model: str,
    settings: Settings,
    kickoff: datetime.datetime,
    run: RunContext,
) -> ChangeReport:
    """Compare data, settings and base model with those of the champion."""
    from hand1000.registry.versions import DATASET, RECIPE, find_champion

    champion = find_champion(run.connect_mlflow(), parse_gestures(gesture))
    if champion is None:
        reasons = ["there is no model yet"]
    else:
        tags = {DATASET: digest(dataset), RECIPE: config_digest(settings, base_model)}
        names = {DATASET: "the data", RECIPE: "the settings or the base model"}
        reasons = [f"{names[tag]} changed" for tag, value in tags.items() if champion.tags.get(tag) != value]
    uri = champion.uri if champion else ""
    print(f"{gesture}, {kickoff:%Y-%m-%d %H:%M}: {' and '.join(reasons) or f'nothing changed since {uri}'}", flush=True)
    return ChangeReport(changed=bool(reasons), champion=uri)


@cluster_task(enable_deck=True)
def keep_current(champion: str, dataset: FlyteDirectory) -> RetrainResult:
    """The end of a retraining that has nothing to learn."""
    outcome = f"unchanged: data, settings and base model are those of {champion}"
    print(f"\nretraining  {outcome}\n", flush=True)
    Deck("retraining", outcome)
    return RetrainResult(outcome=outcome, model_uri=champion, report=dataset)


def load_versions(run: RunContext, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The gates of the new version, and the artifacts that it and the champion were trained on."""
    from hand1000.evaluation.gates import evaluate_gates
    from hand1000.registry.versions import get_version

    tracking = run.connect_mlflow()
    new = get_version(tracking, inputs["model_uri"])
    old = get_version(tracking, inputs["champion"]) if inputs["champion"] else None
    trained_on = [
        [[kind, version.tags.get(tag, "")] for tag, kind in KINDS.items()] if version else [] for version in (old, new)
    ]
    gates = evaluate_gates(new.metrics, old.metrics if old else None, inputs["gates"])
    return {"gates": gates, "trained_on": trained_on}


def finish_retraining(result: TaskResult) -> RetrainResult:
    """Tag the version with the outcome of its gates, log the report, and print both."""
    from hand1000.registry.versions import COMPARED_WITH, GATES, RUN_KEY, get_version, tag_version

    gates, model_uri = result.loaded["gates"], result.inputs["model_uri"]
    failed = [str(gate) for gate in gates if not gate.passed]
    outcome = f"failed: {'; '.join(failed)}" if failed else f"passed: {'; '.join(map(str, gates))}"
    tracking = result.run.connect_mlflow()
    version = get_version(tracking, model_uri)
    tag_version(tracking, version, {GATES: outcome, COMPARED_WITH: result.inputs["champion"]})
    tracker = RunContext(root=result.run.root, run_id=version.tags[RUN_KEY]).open_tracker()
    tracker.log_file(result.folder / "retraining.html")
    tracker.finish()
    print(f"retraining  {outcome}\nregistered  {model_uri}\n", flush=True)
    return RetrainResult(outcome=outcome, model_uri=model_uri, report=result.artifact)


@artifact_task(load=load_versions, finish=finish_retraining, deck="retraining.html")
def evaluate_gates(context: TaskContext, model_uri: str, champion: str, gates: GateSettings) -> None:
    """The gates of a new version and its data's drift since the champion: `retraining.html`, and `drift.json`."""
    from hand1000.evaluation.drift import Drift, measure_drift
    from hand1000.hands.stage1 import load_features
    from hand1000.reports.html import render_template

    store = context.run.open_store()
    old, new = context.loaded["trained_on"]
    drift: Drift | None = None
    note = "there was no model before"
    if old:
        try:
            folders = [store.fetch(f"{store.root}/artifacts/{kind}/{digest}") for kind, digest in [*old, *new]]
            old_data, old_feature, new_data, new_feature = folders
            drift = measure_drift(
                old_data / "train", new_data / "train", load_features(old_feature), load_features(new_feature)
            )
        except Hand1000Error as error:
            note = f"what the champion was trained on is not kept any more: {error}"
    gate_results = context.loaded["gates"]
    page = render_template(
        "retraining.html.j2", model_uri=model_uri, champion=champion, drift=drift, gates=gate_results, note=note
    )
    write_text(context.output_dir / "retraining.html", page)
    if drift:
        write_json(context.output_dir / "drift.json", drift)
