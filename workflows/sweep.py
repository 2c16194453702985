"""Ablations: the same training with one setting changed at a time, and the effect of each change on the images.

pyflyte run workflows/sweep.py sweep --inputs-file workflows/configs/sweep.yaml
"""

from flytekit import dynamic, workflow
from flytekit.types.directory import FlyteDirectory

from hand1000.config.sweep import SweepSettings
from hand1000.models.backbone import required_features
from hand1000.models.base_model import check_features
from tasks.context import RunContext
from tasks.prepare_data import prepare_data
from tasks.resources import resources_table
from tasks.start_run import start_run
from tasks.sweep import write_sweeps
from workflows.train_and_evaluate import train_and_evaluate


@dynamic(**resources_table().pod_of("run_sweep_points").options())
def run_sweep_points(
    gesture: str, images: int, data: str, base_model: str, root: str, shards: int, settings: SweepSettings
) -> FlyteDirectory:
    """Train and evaluate every point, then put them side by side; what points have in common is computed once."""
    for points in settings.sweeps.values():
        for point in points.points:
            check_features(base_model, required_features(settings.common.with_overrides(point.changes)))
    evaluations: dict[str, list[FlyteDirectory]] = {}
    runs: list[RunContext] = []
    for name, points in settings.sweeps.items():
        evaluations[name] = []
        for point in points.points:
            source = {"gesture": points.gesture or gesture, "images": point.images or images, "data": data}
            source["base_model"] = points.base_model or base_model
            # A point may change the seed of the data, the seeds of repeated runs leave it as it is.
            data_seed = settings.common.with_overrides(point.changes).seed
            for changed in settings.runs_of(point):
                dataset = prepare_data(**source, settings=changed.data, seed=data_seed, run=RunContext(root=root))
                inputs = {**source, "settings": changed}
                run = start_run(**inputs, root=root, dataset=dataset)
                evaluated = train_and_evaluate(
                    **inputs, shards=shards, champion="", champion_shard=[], data_seed=data_seed, run=run
                )
                evaluations[name].append(evaluated.evaluation)
                runs.append(run)
    return write_sweeps(
        evaluations=evaluations, gesture=gesture, settings=settings, runs=runs, run=RunContext(root=root)
    )


@workflow
def sweep(
    gesture: str, images: int, data: str, base_model: str, root: str, shards: int, settings: SweepSettings
) -> FlyteDirectory:
    """Run every point of every sweep, and put them side by side; the other inputs are those of `train_gesture`.

    Returns:
        The folder of `sweeps.html`, and of a table and a plot of each sweep.
    """
    return run_sweep_points(
        gesture=gesture, images=images, data=data, base_model=base_model, root=root, shards=shards, settings=settings
    )
