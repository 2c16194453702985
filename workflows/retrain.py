"""Retraining on a schedule: nothing is trained unless there is something to learn since the champion.

pyflyte run workflows/retrain.py retrain --inputs-file workflows/configs/retrain.yaml
"""

import datetime

from flytekit import conditional, workflow

from hand1000.config.gates import GateSettings
from hand1000.config.settings import Settings
from tasks.prepare_data import prepare_data
from tasks.retraining import RetrainResult, detect_changes, evaluate_gates, keep_current
from tasks.start_run import untracked_run
from workflows.train_gesture import train_gesture


@workflow
def train_and_evaluate_gates(  # noqa: PLR0913 (Flyte signature)
    gesture: str,
    images: int,
    data: str,
    base_model: str,
    root: str,
    shards: int,
    settings: Settings,
    gates: GateSettings,
    champion: str,
) -> RetrainResult:
    """Train and register a candidate, and compare it with its gates and the champion."""
    registered = train_gesture(
        gesture=gesture, images=images, data=data, base_model=base_model, root=root, shards=shards, settings=settings
    )
    return evaluate_gates(model_uri=registered.model_uri, champion=champion, gates=gates, run=untracked_run(root=root))


@workflow
def retrain(  # noqa: PLR0913 (Flyte signature)
    gesture: str,
    images: int,
    data: str,
    base_model: str,
    root: str,
    shards: int,
    settings: Settings,
    gates: GateSettings,
    kickoff: datetime.datetime,
) -> RetrainResult:
    """Select and prepare the data, detect whether anything is new, and train if so.

    The inputs are those of `train_gesture`, the gates that the new model must pass, and when the schedule started.

    Returns:
        The outcome in words, the version to use or to review, and the folder of `retraining.html`.
    """
    run = untracked_run(root=root)
    source = {"gesture": gesture, "images": images, "data": data, "base_model": base_model}
    dataset = prepare_data(**source, settings=settings.data, seed=settings.seed, run=run)
    report = detect_changes(
        dataset=dataset, gesture=gesture, base_model=base_model, settings=settings, kickoff=kickoff, run=run
    )
    return (
        conditional("anything_to_learn")
        .if_(report.changed.is_true())
        .then(
            train_and_evaluate_gates(
                **source, root=root, shards=shards, settings=settings, gates=gates, champion=report.champion
            )
        )
        .else_()
        .then(keep_current(champion=report.champion, dataset=dataset))
    )
