"""An MLflow run to which a retry adds nothing that is already recorded."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hand1000.core.errors import Hand1000Error
from hand1000.registry.connection import Tracking
from hand1000.registry.source import LoggedDataset
from hand1000.storage.digests import digest_bytes

if TYPE_CHECKING:
    from mlflow.entities import Metric

SECONDS, PEAK_GIB = "seconds", "peak_gib"
"""Prefixes of the metrics with the duration and the peak memory of the parts of a stage."""

_METRICS_PER_BATCH, _PARAMS_PER_BATCH = 1000, 100
# MLflow cuts longer values, and would then find that the uncut value of a retry differs.
_MAX_PARAM, _MAX_TAG = 6000, 8000
_MAX_SHOWN = 200
# The shortest limit that a version of MLflow had.
_MIN_SERVER_CUT = 250


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

        A value of more than 6,000 characters is cut; its digest at the end distinguishes it from others. One that a
        server has cut to fewer, without a digest, is taken for the same if it begins in the same way.

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
                elif not _is_recorded_as(text, recorded[name]):
                    raise Hand1000Error(
                        f"run {self.run_key}: {name} was recorded as {recorded[name][:_MAX_SHOWN]!r}, now "
                        f"{value[:_MAX_SHOWN]!r}; "
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
        rows = list(rows)
        with self.tracking.readable_errors():
            if not self._new_points(rows):
                return
            with self.tracking.lock():
                if self.tracking.lock_file:
                    # Another process may have recorded other values meanwhile, and MLflow would keep both.
                    self._steps.clear()
                metrics = self._new_points(rows)
                for start in range(0, len(metrics), _METRICS_PER_BATCH):
                    self._reopen()
                    batch = metrics[start : start + _METRICS_PER_BATCH]
                    self.tracking.client.log_batch(self.run_id, metrics=batch)
                    for metric in batch:
                        self._steps[metric.key].add(metric.step)

    def log_metrics(self, metrics: Mapping[str, float | None]) -> None:
        """Record final values, once; None, NaN and infinity are omitted."""
        self.log_history([{"step": 0, **metrics}])

    def log_model_metrics(self, model_id: str, metrics: Mapping[str, float | None], dataset: LoggedDataset) -> None:
        """Record final values of this run and of a logged model on a dataset, once, as `log_metrics` does."""
        from mlflow.entities import Metric

        with self.tracking.readable_errors(), self.tracking.lock():
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

    def _new_points(self, rows: Iterable[Mapping[str, Any]]) -> "list[Metric]":
        """Return what `log_history` has to record: the numbers of steps that their metrics do not have yet."""
        from mlflow.entities import Metric

        points: dict[tuple[str, int], Metric] = {}
        for row in rows:
            step = int(row["step"])
            for name, value in row.items():
                if name != "step" and _is_number(value) and step not in self._recorded_steps(name):
                    # MLflow distinguishes points by their time, too. With a fixed one, a second process cannot add
                    # the same point again after our check.
                    points.setdefault((name, step), Metric(name, float(value), timestamp=step, step=step))
        return list(points.values())

    def _recorded_steps(self, name: str) -> set[int]:
        if name not in self._steps:
            history = self.tracking.client.get_metric_history(self.run_id, name)
            self._steps[name] = {metric.step for metric in history}
        return self._steps[name]


def flatten(values: Mapping[str, object], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Yield the names and texts of nested settings as parameters, `outer.inner` for a nested one."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _is_recorded_as(text: str, recorded: str) -> bool:
    """Return whether MLflow has a parameter's text, whole, cut by us, or cut by a server, which does so silently."""
    is_start = len(recorded) >= _MIN_SERVER_CUT and text.startswith(recorded)
    return recorded in (text, _shorten(text, _MAX_PARAM)) or is_start


def _shorten(text: str, length: int) -> str:
    if len(text) <= length:
        return text
    digest = f"... (sha256 {digest_bytes(text.encode())})"
    return text[: length - len(digest)] + digest
