"""Retraining on a schedule: nothing is trained unless data, settings or base model are new.

pyflyte run workflows/retrain.py retrain --inputs-file workflows/configs/retrain.yaml
"""

import datetime

from flytekit import conditional, workflow

from hand1000.config.settings import Settings
from tasks.prepare_data import prepare_data
from tasks.registration import RegistrationResult
from tasks.retraining import detect_changes, keep_current
from tasks.start_run import check_inputs
from workflows.train_gesture import train_gesture


@workflow
def retrain(  # noqa: PLR0913 (Flyte signature)
    gesture: str,
    images: int,
    data: str,
    base_model: str,
    root: str,
    shards: int,
    settings: Settings,
    kickoff: datetime.datetime,
) -> RegistrationResult:
    """Select and prepare the data, detect whether anything is new, and run `train_gesture` if so.

    The inputs are those of `train_gesture`, and when the schedule started.

    Returns:
        The outcome in words, the version to use or to review, and the folder of `report.html`, or of the unchanged
        data.
    """
    run = check_inputs(gesture=gesture, base_model=base_model, settings=settings, root=root)
    source = {"gesture": gesture, "images": images, "data": data, "base_model": base_model}
    dataset = prepare_data(**source, settings=settings.data, seed=settings.seed, run=run)
    report = detect_changes(**source, dataset=dataset, settings=settings, kickoff=kickoff, run=run)
    return (
        conditional("anything_to_learn")
        .if_(report.changed.is_true())
        .then(train_gesture(**source, root=root, shards=shards, settings=settings))
        .else_()
        .then(keep_current(model_uri=report.model_uri, standing=report.standing, dataset=dataset, run=run))
    )
