"""Scheduled retraining: look whether there is anything to learn, and judge what was learned."""

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from flytekit import Deck
from flytekit.types.directory import FlyteDirectory

from hand1000.config.gates import GateSettings
from hand1000.config.settings import Settings
from tasks.context import (
    Artifact,
    TaskContext,
    address,
    cluster_task,
    config_digest,
    digest,
    mlflow_folder,
    open_tracker,
    run_cached,
)

if TYPE_CHECKING:
    from hand1000.evaluation.gates import Gate


class ChangeReport(NamedTuple):
    """Whether there is anything to learn, and from which version on; '' where there is none."""

    changed: bool
    champion: str


class RetrainResult(NamedTuple):
    """What came of a retraining.

    `outcome` is `unchanged`, `passed` or `failed`, and why; `model_uri` the version to use or to review.
    """

    outcome: str
    model_uri: str
    report: FlyteDirectory


@cluster_task(cache=False)
def detect_changes(
    dataset: FlyteDirectory, gesture: str, base_model: str, settings: Settings, kickoff: datetime.datetime, root: str
) -> ChangeReport:
    """Hold data, settings and base model against those of the champion."""
    from hand1000.gestures import parse_gestures
    from hand1000.registry.champion import DATASET, RECIPE, find_champion
    from hand1000.registry.connection import connect

    champion = find_champion(connect(mlflow_folder(root)), parse_gestures(gesture))
    if champion is None:
        reasons = ["there is no model yet"]
    else:
        now = {DATASET: digest(dataset), RECIPE: config_digest(settings, base_model)}
        names = {DATASET: "the data", RECIPE: "the settings or the base model"}
        reasons = [f"{names[tag]} changed" for tag, value in now.items() if champion.tags.get(tag) != value]
    uri = champion.uri if champion else ""
    print(f"{gesture}, {kickoff:%Y-%m-%d %H:%M}: {' and '.join(reasons) or f'nothing changed since {uri}'}", flush=True)
    return ChangeReport(changed=bool(reasons), champion=uri)


@cluster_task(enable_deck=True)
def keep_current(champion: str, dataset: FlyteDirectory, root: str) -> RetrainResult:
    """The end of a retraining for which there was nothing to learn."""
    outcome = f"unchanged: data, settings and base model are those of {champion}"
    print(f"\nretraining  {outcome}\n", flush=True)
    Deck("retraining", outcome)
    return RetrainResult(outcome=outcome, model_uri=champion, report=dataset)


@cluster_task(enable_deck=True)
def evaluate_gates(model_uri: str, champion: str, gates: GateSettings, root: str) -> RetrainResult:
    """The gates of a new version and the drift of its data since the champion, as tags and `retraining.html`."""
    from hand1000.evaluation.gates import evaluate_gates
    from hand1000.registry.champion import GATES, get_version, tag_version
    from hand1000.registry.connection import connect
    from hand1000.registry.tracking import RUN_KEY
    from hand1000.storage.artifacts import open_store

    tracking = connect(mlflow_folder(root))
    new = get_version(tracking, model_uri)
    old = get_version(tracking, champion) if champion else None
    judged = evaluate_gates(new.measures, old.measures if old else None, gates)
    failed = [str(gate) for gate in judged if not gate.passed]
    report = _report(model_uri, champion, new.tags, old.tags if old else {}, judged, root)
    outcome = f"failed: {'; '.join(failed)}" if failed else f"passed: {'; '.join(map(str, judged))}"
    tag_version(tracking, new, {GATES: outcome, "hand1000.champion": champion})
    run = open_tracker(new.tags[RUN_KEY], root)
    run.log_file(open_store(root).fetch(address(report)) / "retraining.html")
    run.finish()
    page = f"{address(report)}/retraining.html"
    print(f"\nretraining  {outcome}\nregistered  {model_uri}\nreport      {page}\n", flush=True)
    return RetrainResult(outcome=outcome, model_uri=model_uri, report=report)


def _report(
    model_uri: str, champion: str, new: Mapping[str, str], old: Mapping[str, str], judged: "tuple[Gate, ...]", root: str
) -> Artifact:
    """`retraining.html` and, where there is anything to compare with, `drift.json`."""
    from hand1000.core.errors import Hand1000Error
    from hand1000.evaluation.drift import Drift, measure_drift
    from hand1000.hands.stage1 import load_features
    from hand1000.registry.champion import DATASET, FEATURE
    from hand1000.reports.retraining import write_retraining
    from hand1000.storage.files import write_json

    kinds = {DATASET: "prepare_data", FEATURE: "average_hands"}

    def build(work: TaskContext) -> None:
        def folders(tags: Mapping[str, str]) -> list[Path]:
            return [work.store.fetch(f"{work.store.root}/artifacts/{kind}/{tags[tag]}") for tag, kind in kinds.items()]

        drift: Drift | None = None
        note = "there was no model before"
        if old:
            try:
                (before, hands_before), (now, hands_now) = folders(old), folders(new)
                drift = measure_drift(
                    before / "train", now / "train", load_features(hands_before), load_features(hands_now)
                )
            except (KeyError, Hand1000Error) as error:
                note = f"what the champion was trained on is not kept any more: {error}"
        write_retraining(
            work.out / "retraining.html",
            model_uri=model_uri,
            champion=champion,
            drift=drift,
            gates=judged,
            note=note,
        )
        Deck("retraining", (work.out / "retraining.html").read_text())
        if drift:
            write_json(work.out / "drift.json", drift)

    inputs = {"model": model_uri, "champion": champion, "gates": [str(gate) for gate in judged]}
    inputs["data"] = [tags.get(tag, "") for tags in (old, new) for tag in kinds]
    return run_cached("judge", root=root, run="", build=build, inputs=inputs)
