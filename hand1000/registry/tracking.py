"""MLflow runs: one parent per workflow run, one child per stage, both found again by their tags on a retry."""

import math
import re
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from hand1000.core.errors import Hand1000Error
from hand1000.registry.connection import Tracking
from hand1000.registry.source import LoggedDataset, source_tags
from hand1000.registry.versions import RUN_KEY
from hand1000.storage.digests import digest_bytes

STAGE = "hand1000.stage"
SECONDS, PEAK_GIB = "seconds", "peak_gib"
PARENT = "mlflow.parentRunId"
"""MLflow's own tag of a child run: the id of its parent."""

EXPERIMENT = "hand1000"
"""Experiment of all runs."""

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,199}")
_METRICS_PER_BATCH, _PARAMS_PER_BATCH = 1000, 100
# MLflow cuts longer values, and would then find that the uncut value of a retry differs.
_MAX_PARAM, _MAX_TAG = 6000, 8000


class Run:
    """An MLflow run to which a retry adds nothing that is already recorded.

    Attributes:
        run_id: MLflow's id.
        run_key: Key of the workflow run.
        experiment_id: MLflow's id of the experiment.
    """

    def __init__(self, tracking: Tracking, run_id: str, run_key: str, experiment_id: str) -> None:
        self.tracking = tracking
        self.run_id = run_id
        self.run_key = run_key
        self.experiment_id = experiment_id
        self._steps: dict[str, set[int]] = {}
        self._is_open = False

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record settings; nested mappings become `outer.inner`.

        A value of more than 6,000 characters is cut; its digest at the end distinguishes it from others.

        Raises:
            Hand1000Error: A parameter was recorded with another value: a run key identifies one set of settings.
        """
        from mlflow.entities import Param

        with self.tracking.readable_errors():
            recorded = self.tracking.client.get_run(self.run_id).data.params
            new = []
            for name, text in flatten(params):
                value = _shorten(text, _MAX_PARAM)
                if name not in recorded:
                    new.append(Param(name, value))
                elif recorded[name] != value:
                    raise Hand1000Error(
                        f"run {self.run_key}: {name} was recorded as {recorded[name]!r}, now {value!r}; "
                        "choose another run key for other settings"
                    )
            for start in range(0, len(new), _PARAMS_PER_BATCH):
                self.tracking.client.log_batch(self.run_id, params=new[start : start + _PARAMS_PER_BATCH])

    def log_history(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Record curves.

        Args:
            rows: `{"step": i, "loss": x, ...}`, as in a history file. A step that a metric already has is skipped, so
                that a retry may pass all rows again. Values that are None, NaN or infinite are omitted.
        """
        from mlflow.entities import Metric

        with self.tracking.readable_errors():
            metrics: list[Metric] = []
            for row in rows:
                step = int(row["step"])
                for name, value in row.items():
                    if name == "step" or not _is_number(value) or step in self._recorded_steps(name):
                        continue
                    self._steps[name].add(step)
                    # MLflow distinguishes points by their time, too. With a fixed one, a second process cannot add
                    # the same point again after our check.
                    metrics.append(Metric(name, float(value), timestamp=step, step=step))
            for start in range(0, len(metrics), _METRICS_PER_BATCH):
                self._reopen()
                self.tracking.client.log_batch(self.run_id, metrics=metrics[start : start + _METRICS_PER_BATCH])

    def log_metrics(self, metrics: Mapping[str, float | None]) -> None:
        """Record final values, once; None, NaN and infinity are omitted."""
        self.log_history([{"step": 0, **metrics}])

    def log_model_metrics(self, model_id: str, metrics: Mapping[str, float | None], dataset: LoggedDataset) -> None:
        """Record final values of this run and of a logged model on a dataset, once, as `log_metrics` does."""
        from mlflow.entities import Metric

        with self.tracking.readable_errors():
            client = self.tracking.client
            recorded = client.get_run(self.run_id).data.metrics
            of_model = {metric.key for metric in client.get_logged_model(model_id).metrics or ()}
            new = [
                # The value of the run, where it has one: with another, it would get a second point.
                Metric(name, recorded.get(name, value), 0, 0, model_id, dataset.name, dataset.digest, self.run_id)
                for name, value in metrics.items()
                if value is not None and math.isfinite(value) and name not in of_model
            ]
            if new:
                self._reopen()
                client.log_batch(self.run_id, metrics=new)

    def log_dataset(self, dataset: LoggedDataset, context: Literal["training", "testing"]) -> None:
        """Record a dataset as an input of this run, once."""
        from mlflow.entities import DatasetInput, InputTag

        with self.tracking.readable_errors():
            inputs = [DatasetInput(dataset.to_mlflow(), [InputTag("mlflow.data.context", context)])]
            self.tracking.client.log_inputs(self.run_id, datasets=inputs)

    def log_seconds(self, name: str, seconds: float) -> None:
        """Record the duration of `name` as the metric `seconds.<name>`; the first value stays."""
        self.log_metrics({f"{SECONDS}.{name}": seconds})

    def log_peak(self, name: str, peak_bytes: int) -> None:
        """Record the peak memory of `name` as the metric `peak_gib.<name>`; the first value stays."""
        self.log_metrics({f"{PEAK_GIB}.{name}": peak_bytes / 2**30})

    def log_file(self, path: Path, folder: str | None = None) -> None:
        """Save a file among the run's artifacts, in place of an earlier one."""
        with self.tracking.readable_errors():
            self.tracking.client.log_artifact(self.run_id, str(path), folder)

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags, in place of earlier values."""
        from mlflow.entities import RunTag

        with self.tracking.readable_errors():
            short = [RunTag(key, _shorten(str(value), _MAX_TAG)) for key, value in tags.items()]
            self.tracking.client.log_batch(self.run_id, tags=short)

    def finish(self, status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED", end_time: int | None = None) -> None:
        """Close the run; opening it again by its key resumes it.

        A run that was finished before keeps its end, unless it has recorded new metrics since then.

        Args:
            status: How it ended.
            end_time: When it ended, in milliseconds since 1970; by default now.
        """
        with self.tracking.readable_errors():
            if self.tracking.client.get_run(self.run_id).info.status != status:
                self.tracking.client.set_terminated(self.run_id, status, end_time)

    def _reopen(self) -> None:
        """Mark the run as running before it records something new."""
        if not self._is_open:
            self.tracking.client.update_run(self.run_id, status="RUNNING")
            self._is_open = True

    def _recorded_steps(self, name: str) -> set[int]:
        if name not in self._steps:
            history = self.tracking.client.get_metric_history(self.run_id, name)
            self._steps[name] = {metric.step for metric in history}
        return self._steps[name]


class RunTracker(Run):
    """The parent run of a workflow run: created by the first call with a key, resumed by every later one.

    Args:
        experiment: Name of the experiment, which is created if necessary.
        run_key: Key of the workflow run, unique in the experiment: at most 200 letters, digits and `._:/-`.
        tracking: Connection from `connection.connect`.
        name: Name of a new run on MLflow's pages; by default its key.

    Raises:
        Hand1000Error: A malformed key, a deleted experiment, or an MLflow that does not answer.
    """

    def __init__(self, experiment: str, run_key: str, tracking: Tracking, *, name: str = "") -> None:
        _check_key("run key", run_key)
        with tracking.lock(), tracking.readable_errors():
            experiment_id = get_or_create_experiment(tracking, experiment)
            run_id = _get_or_create_run(tracking, experiment_id, name or run_key, {RUN_KEY: run_key})
        super().__init__(tracking, run_id, run_key, experiment_id)

    def child_run(self, name: str) -> Run:
        """Return the run of the stage `name`, created by the first call and resumed by every later one."""
        _check_key("stage", name)
        # The tag differs from the parent's, so that a search for the parent does not find the children.
        tags = {STAGE: f"{self.run_key}#{name}", PARENT: self.run_id}
        with self.tracking.lock(), self.tracking.readable_errors():
            run_id = _get_or_create_run(self.tracking, self.experiment_id, name, tags)
        return Run(self.tracking, run_id, self.run_key, self.experiment_id)

    def stage_seconds(self) -> dict[str, float]:
        """Return the duration of each stage, summed over its shards, in the order in which the stages began."""
        return self._aggregate_stages(SECONDS, sum)

    def stage_peaks(self) -> dict[str, float]:
        """Return the peak memory of each stage in GiB, the largest of its shards; stages without one are omitted."""
        return {stage: peak for stage, peak in self._aggregate_stages(PEAK_GIB, max).items() if peak}

    def _aggregate_stages(self, prefix: str, aggregate: Callable[[list[float]], float]) -> dict[str, float]:
        """Return the aggregate of the metrics `<prefix>.<part>` of each stage; 0 for a stage without any."""
        with self.tracking.readable_errors():
            children = self.tracking.client.search_runs(
                [self.experiment_id], f"tags.`{PARENT}` = '{self.run_id}'", order_by=["attributes.start_time ASC"]
            )
        values = {
            child.info.run_name: [value for name, value in child.data.metrics.items() if name.startswith(f"{prefix}.")]
            for child in children
        }
        return {stage: aggregate(parts) if parts else 0.0 for stage, parts in values.items()}


def get_or_create_experiment(tracking: Tracking, name: str) -> str:
    """Return the id of the experiment `name`; raise `Hand1000Error` if it is deleted."""
    from mlflow.exceptions import MlflowException

    client = tracking.client
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        folder = re.sub(r"[^A-Za-z0-9._-]", "_", name)
        try:
            return client.create_experiment(name, tracking.artifact_root and f"{tracking.artifact_root}/{folder}")
        except MlflowException as error:
            # Another process has created it in the meantime.
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(name)
    if experiment is None or experiment.lifecycle_stage != "active":
        raise Hand1000Error(f"experiment {name!r} is deleted in MLflow; restore it there or choose another name")
    return experiment.experiment_id


def _get_or_create_run(tracking: Tracking, experiment_id: str, name: str, tags: dict[str, str]) -> str:
    """Return the id of the run with the first of `tags`, set to running unless it is finished."""
    client = tracking.client
    key, value = next(iter(tags.items()))

    def search() -> list:
        return client.search_runs([experiment_id], f"tags.`{key}` = '{value}'", order_by=["attributes.start_time ASC"])

    runs, created = search(), None
    if not runs:
        started = int(time.time() * 1000)
        created = client.create_run(experiment_id, start_time=started, tags=source_tags() | tags, run_name=name)
        # Without a lock, two processes may both create one: all use the older one, and the other is deleted.
        runs = search() or [created]
    run = min(runs, key=lambda run: (run.info.start_time, run.info.run_id))
    if created is not None and created.info.run_id != run.info.run_id:
        _discard_run(tracking, created.info.run_id, key)
    if run.info.status in ("FAILED", "KILLED"):
        client.update_run(run.info.run_id, status="RUNNING")
    return run.info.run_id


def _discard_run(tracking: Tracking, run_id: str, key: str) -> None:
    """Delete a run that was created twice; an account that may not delete takes the tag `key` from it and closes it."""
    from mlflow.exceptions import MlflowException

    try:
        tracking.client.delete_run(run_id)
    except MlflowException as error:
        if error.error_code != "PERMISSION_DENIED":
            raise
        tracking.client.set_tag(run_id, key, "")
        tracking.client.set_terminated(run_id, "KILLED")


def flatten(values: Mapping[str, object], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Yield the names and texts of nested settings as parameters, `outer.inner` for a nested one."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _shorten(text: str, length: int) -> str:
    if len(text) <= length:
        return text
    digest = f"... (sha256 {digest_bytes(text.encode())})"
    return text[: length - len(digest)] + digest


def _check_key(role: str, text: str) -> None:
    if not _KEY.fullmatch(text):
        raise Hand1000Error(f"{role} {text!r}: use letters, digits and ._:/- only, at most 200")
