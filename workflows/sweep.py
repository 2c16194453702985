"""Ablations: the same training again and again with one thing changed, and what each change does to the pictures.

pyflyte run workflows/sweep.py sweep --inputs-file workflows/configs/sweep.yaml
"""

from flytekit import dynamic, workflow
from flytekit.types.directory import FlyteDirectory

from hand1000.config.sweep import SweepSettings, with_overrides
from tasks.mlflow_run import start_run
from tasks.resources import resources_table
from tasks.sweep import write_sweeps
from workflows.train_and_evaluate import train_and_evaluate


@dynamic(**resources_table().pod_of("run_sweep_points").options())
def run_sweep_points(
    gesture: str, images: int, data: str, base_model: str, root: str, shards: int, settings: SweepSettings
) -> dict[str, list[FlyteDirectory]]:
    """Train and measure every point; what points have in common is computed once."""
    evaluations: dict[str, list[FlyteDirectory]] = {}
    for name, one in settings.sweeps.items():
        evaluations[name] = []
        for point in one.points:
            inputs = {
                "gesture": gesture,
                "images": point.images or images,
                "data": data,
                "base_model": base_model,
                "root": root,
                "settings": with_overrides(settings.common, point.changes),
            }
            run = start_run(**inputs)
            evaluations[name].append(train_and_evaluate(**inputs, shards=shards, run=run).evaluation)
    return evaluations


@workflow
def sweep(
    gesture: str, images: int, data: str, base_model: str, root: str, shards: int, settings: SweepSettings
) -> FlyteDirectory:
    """Run every point of every sweep, and put them side by side.

    Args:
        gesture, images, data, base_model, root, shards: as `train_gesture` takes them.
        settings: what all runs have in common, and what each changes.

    Returns:
        the folder of `sweeps.html`, and of a table and a plot a sweep.
    """
    evaluations = run_sweep_points(
        gesture=gesture,
        images=images,
        data=data,
        base_model=base_model,
        root=root,
        shards=shards,
        settings=settings,
    )
    return write_sweeps(evaluations=evaluations, gesture=gesture, settings=settings, root=root)
