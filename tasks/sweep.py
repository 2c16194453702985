"""The points of sweeps side by side."""

from flytekit.types.directory import FlyteDirectory

from hand1000.config.sweep import SweepSettings
from tasks.context import RunContext, TaskContext
from tasks.decorators import artifact_task
from tasks.start_run import end_runs


@artifact_task(
    key_by={"settings": lambda settings: [settings.sweeps, settings.seeds]}, excluded=("runs",), finish=end_runs
)
def write_sweeps(
    context: TaskContext,
    evaluations: dict[str, list[FlyteDirectory]],
    gesture: str,
    settings: SweepSettings,
    runs: list[RunContext],
) -> None:
    """A table and a plot of each sweep, and `sweeps.html` with all of them; ends all `runs`.

    `evaluations` has those of each sweep by point, then by seed.
    """
    from hand1000.reports.sweep import Trainings, write_sweeps

    repeats = max(1, len(settings.seeds))
    results = {}
    for name, folders in evaluations.items():
        local = context.download_all(folders)
        results[name] = [Trainings.read(local[start : start + repeats]) for start in range(0, len(local), repeats)]
    write_sweeps(context.output_dir, gesture, settings.sweeps, results)
