"""The runs of sweeps side by side."""

from flytekit.types.directory import FlyteDirectory

from hand1000.config.sweep import SweepSettings
from tasks.context import Artifact, TaskContext, cluster_task, run_cached


@cluster_task()
def write_sweeps(
    evaluations: dict[str, list[FlyteDirectory]], gesture: str, settings: SweepSettings, root: str
) -> Artifact:
    """A table and a plot of each sweep, and `sweeps.html` with all of them."""
    from hand1000.evaluation.metrics import Metrics
    from hand1000.reports.sweep_page import write_sweeps as write
    from hand1000.storage.files import read_json

    def build(work: TaskContext) -> None:
        def measured(side: str, evaluation: FlyteDirectory) -> Metrics:
            return Metrics.model_validate(read_json(work.read(evaluation) / f"{side}.json"))

        write(
            work.out,
            gesture,
            settings.sweeps,
            {name: [measured("tuned", one) for one in found] for name, found in evaluations.items()},
            measured("base", next(iter(evaluations.values()))[0]),
        )

    return run_cached(
        "write_sweeps",
        root=root,
        run="",
        build=build,
        inputs={
            "evaluations": [[name, found] for name, found in sorted(evaluations.items())],
            "gesture": gesture,
            "sweeps": settings.sweeps,
        },
    )
