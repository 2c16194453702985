"""The points of sweeps side by side."""

from flytekit.types.directory import FlyteDirectory

from hand1000.config.sweep import SweepSettings
from hand1000.storage.files import read_json
from tasks.context import RunContext, TaskContext
from tasks.decorators import artifact_task
from tasks.start_run import end_runs


@artifact_task(key_by={"settings": lambda settings: settings.sweeps}, excluded=("runs",), finish=end_runs)
def write_sweeps(
    context: TaskContext,
    evaluations: dict[str, list[FlyteDirectory]],
    gesture: str,
    settings: SweepSettings,
    runs: list[RunContext],
) -> None:
    """A table and a plot of each sweep, and `sweeps.html` with all of them; ends all `runs`."""
    from hand1000.evaluation.metrics import Metrics
    from hand1000.reports.sweep import write_sweeps

    def metrics(side: str, evaluation: FlyteDirectory) -> Metrics:
        return Metrics.model_validate(read_json(context.download(evaluation) / f"{side}.json"))

    write_sweeps(
        context.output_dir,
        gesture,
        settings.sweeps,
        {name: [metrics("tuned", point) for point in points] for name, points in evaluations.items()},
        metrics("base", next(iter(evaluations.values()))[0]),
    )
