"""Copies of experiments and their runs from one MLflow to another."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from hand1000.core.errors import Hand1000Error
from hand1000.registry.connection import Tracking, read_pages
from hand1000.registry.tracking import PARENT, get_or_create_experiment
from hand1000.storage.digests import digest_file

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Metric, Run

COPIED_FROM = "hand1000.copied_from"
"""Tag of a copied run or logged model: the id of the original."""

_BATCH, _PARAMS = 1000, 100


@dataclass
class CopyReport:
    """How many objects a copy has added at its target."""

    runs: int = 0
    metrics: int = 0
    files: int = 0
    models: int = 0
    versions: int = 0
    aliases: int = 0
    tags: int = 0

    def __str__(self) -> str:
        """The counts that are not zero, in words."""
        added = [f"{count} {name}" for name, count in vars(self).items() if count]
        return ", ".join(added) or "nothing: everything is there already"


@dataclass(frozen=True)
class Copy:
    """A copy in progress.

    Attributes:
        source: MLflow that is read.
        target: MLflow that is written.
        report: What was added.
        experiments: Ids of the experiments of the source, by which those of the target are found.
        run_ids: Ids of the runs at the target by those at the source.
    """

    source: Tracking
    target: Tracking
    report: CopyReport = field(default_factory=CopyReport)
    experiments: dict[str, str] = field(default_factory=dict)
    run_ids: dict[str | None, str] = field(default_factory=dict)


def copy_runs(copy: Copy) -> None:
    """Copy every experiment that has runs; what the target has already is neither repeated nor changed."""
    for experiment in read_pages(copy.source.client.search_experiments):
        runs = list(read_pages(copy.source.client.search_runs, [experiment.experiment_id]))
        if not runs:
            continue
        copy.experiments[experiment.experiment_id] = get_or_create_experiment(copy.target, experiment.name)
        present = _runs_by_origin(copy.target.client, copy.experiments[experiment.experiment_id])
        # Parents first, because the copies of their children refer to the copies of the parents.
        for run in sorted(runs, key=lambda run: (PARENT in run.data.tags, run.info.start_time)):
            _copy_run(copy, experiment, run, present.get(run.info.run_id))


def _runs_by_origin(client: "MlflowClient", experiment_id: str) -> dict[str, "Run"]:
    runs = read_pages(client.search_runs, [experiment_id])
    return {run.data.tags[COPIED_FROM]: run for run in runs if COPIED_FROM in run.data.tags}


def _copy_run(copy: Copy, experiment: "Experiment", run: "Run", present: "Run | None") -> None:
    from mlflow.entities import Param, RunTag

    target, run_id = copy.target.client, run.info.run_id
    tags = {name: value for name, value in run.data.tags.items() if name != COPIED_FROM}
    if tags.get(PARENT) in copy.run_ids:
        tags[PARENT] = copy.run_ids[tags[PARENT]]
    if present is None:
        experiment_id = copy.experiments[experiment.experiment_id]
        present = target.create_run(
            experiment_id, run.info.start_time, {COPIED_FROM: run_id, **tags}, run.info.run_name
        )
        copy.report.runs += 1
    copied = copy.run_ids[run_id] = present.info.run_id
    params = [Param(*item) for item in run.data.params.items() if item[0] not in present.data.params]
    for start in range(0, len(params), _PARAMS):
        target.log_batch(copied, params=params[start : start + _PARAMS])
    new_tags = [RunTag(*item) for item in tags.items() if item[0] not in present.data.tags]
    if new_tags:
        target.log_batch(copied, tags=new_tags)
        copy.report.tags += len(new_tags)
    _copy_metrics(copy, run, present)
    datasets = present.inputs.dataset_inputs if present.inputs else []
    if run.inputs and len(datasets) < len(run.inputs.dataset_inputs):
        target.log_inputs(copied, datasets=run.inputs.dataset_inputs)
    _copy_files(copy, RunFiles(copy.source.client, run_id), RunFiles(target, copied))
    # The last step: a run that looks finished is complete.
    if present.info.status != run.info.status and run.info.status != "RUNNING":
        target.set_terminated(copied, run.info.status, run.info.end_time)


def _copy_metrics(copy: Copy, run: "Run", present: "Run") -> None:
    source, target, copied = copy.source.client, copy.target.client, present.info.run_id
    for name in run.data.metrics:
        points = {_point(metric): metric for metric in source.get_metric_history(run.info.run_id, name)}
        if name in present.data.metrics:
            for metric in target.get_metric_history(copied, name):
                points.pop(_point(metric), None)
        copy.report.metrics += len(points)
        for batch in _batches(list(points.values())):
            target.log_batch(copied, metrics=batch)


@dataclass(frozen=True)
class RunFiles:
    """The artifacts of a run."""

    client: "MlflowClient"
    run_id: str

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Return the size in bytes of each file below `folder`, by its path."""
        sizes: dict[str, int] = {}
        for entry in self.client.list_artifacts(self.run_id, folder or None):
            sizes |= self.sizes(entry.path) if entry.is_dir else {entry.path: entry.file_size or 0}
        return sizes

    def download(self, path: str, scratch: Path) -> Path:
        """Download a file to a folder."""
        scratch.mkdir()
        return Path(self.client.download_artifacts(self.run_id, path, str(scratch)))


def _copy_files(copy: Copy, source: RunFiles, target: RunFiles) -> None:
    """Copy the files that the target lacks, and compare what it then has with the originals."""
    present = target.sizes()
    for path, size in source.sizes().items():
        if present.get(path) == size:
            continue
        with TemporaryDirectory() as scratch:
            file = source.download(path, Path(scratch) / "source")
            target.client.log_artifact(target.run_id, str(file), str(Path(path).parent) if "/" in path else None)
            if digest_file(target.download(path, Path(scratch) / "target")) != digest_file(file):
                raise Hand1000Error(f"{path} of run {source.run_id}: arrived damaged at the target; copy again")
        copy.report.files += 1


def _point(metric: "Metric") -> tuple[int, int, float]:
    return metric.timestamp, metric.step, metric.value


def _batches(metrics: list["Metric"]) -> Iterator[list["Metric"]]:
    from mlflow.entities import Metric

    for start in range(0, len(metrics), _BATCH):
        yield [
            Metric(metric.key, metric.value, metric.timestamp, metric.step)
            for metric in metrics[start : start + _BATCH]
        ]
