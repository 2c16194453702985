"""Retraining on a schedule: nothing is trained unless there is something to learn since the champion.

pyflyte run workflows/retrain.py retrain --inputs-file workflows/configs/retrain.yaml
"""

import datetime

from flytekit import conditional, workflow

from hand1000.config.gates import GateSettings
from hand1000.config.settings import Settings
from tasks.prepare_data import prepare_data
from tasks.retraining import RetrainResult, detect_changes, evaluate_gates, keep_current
from workflows.train_gesture import train_gesture


@workflow
def train_and_judge(
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
    """Train and register a candidate, and hold it against its gates and the champion."""
    registered = train_gesture(
        gesture=gesture,
        images=images,
        data=data,
        base_model=base_model,
        root=root,
        shards=shards,
        settings=settings,
    )
    return evaluate_gates(model_uri=registered.model_uri, champion=champion, gates=gates, root=root)


@workflow
def retrain(
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
    """Choose and prepare the data, look whether anything is new, and train if so.

    Args:
        gesture, images, data, base_model, root, shards, settings: as `train_gesture` takes them.
        gates: what the new model must reach.
        kickoff: when the schedule started this run.

    Returns:
        the outcome in words, the version to use or to review, and the folder of `retraining.html`.
    """
    dataset = prepare_data(
        gesture=gesture,
        images=images,
        data=data,
        base_model=base_model,
        settings=settings.data,
        seed=settings.seed,
        run="",
        root=root,
    )
    found = detect_changes(
        dataset=dataset, gesture=gesture, base_model=base_model, settings=settings, kickoff=kickoff, root=root
    )
    return (
        conditional("anything_to_learn")
        .if_(found.changed.is_true())
        .then(
            train_and_judge(
                gesture=gesture,
                images=images,
                data=data,
                base_model=base_model,
                root=root,
                shards=shards,
                settings=settings,
                gates=gates,
                champion=found.champion,
            )
        )
        .else_()
        .then(keep_current(champion=found.champion, dataset=dataset, root=root))
    )
