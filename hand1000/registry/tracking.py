"""One parent run a workflow run and one child a stage, found again by their tags when a task is retried."""

import math
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hand1000.core.errors import Hand1000Error
from hand1000.registry.connection import Tracking

if TYPE_CHECKING:
    from mlflow.entities import Metric
    from PIL import Image

RUN_KEY = "hand1000.run_key"
STAGE = "hand1000.stage"
SECONDS = "seconds"
_PARENT = "mlflow.parentRunId"
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,199}")
_METRICS_A_BATCH, _PARAMS_A_BATCH = 1000, 100
_DIGEST_LENGTH = 36


class Run:
    """A run of MLflow that may be recorded twice: what is there already is not added again.

    Attributes:
        run_id: MLflow's id.
        run_key: the workflow run's key.
        experiment_id: of the experiment it lies in.
    """

    def __init__(self, tracking: Tracking, run_id: str, run_key: str, experiment_id: str) -> None:
        self.tracking = tracking
        self.run_id = run_id
        self.run_key = run_key
        self.experiment_id = experiment_id
        self._steps: dict[str, set[int]] = {}

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record settings; nested mappings become `outer.inner`.

        Raises:
            Hand1000Error: a parameter was recorded with another value: a run key stands for one set of settings.
        """
        from mlflow.entities import Param

        texts = dict(_flattened(params))
        with self.tracking.readable_errors():
            known = self.tracking.client.get_run(self.run_id).data.params
            for name, value in texts.items():
                if known.get(name, value) != value:
                    raise Hand1000Error(
                        f"run {self.run_key}: {name} was recorded as {known[name]!r}, now {value!r}; "
                        "choose another run key for other settings"
                    )
            new = [Param(name, value) for name, value in texts.items() if name not in known]
            for start in range(0, len(new), _PARAMS_A_BATCH):
                self.tracking.client.log_batch(self.run_id, params=new[start : start + _PARAMS_A_BATCH])

    def log_history(self, rows: Iterable[Mapping[str, float]]) -> None:
        """Record curves.

        Args:
            rows: `{"step": i, "loss": x, ...}`, as in a history file. A step that a metric has already is skipped,
                so a retry may give all rows again. Values that are None or not a number are left out.
        """
        from mlflow.entities import Metric

        with self.tracking.readable_errors():
            batch: list[Metric] = []
            for row in rows:
                step = int(row["step"])
                for name, value in row.items():
                    if name == "step" or not _is_number(value) or step in self._known_steps(name):
                        continue
                    self._steps[name].add(step)
                    # MLflow tells points apart by their time too: a fixed one keeps a second process from adding
                    # the same point again between our look and our write.
                    batch.append(Metric(name, float(value), timestamp=step, step=step))
                    if len(batch) == _METRICS_A_BATCH:
                        self._write_metrics(batch)
                        batch = []
            self._write_metrics(batch)

    def log_metrics(self, metrics: Mapping[str, float | None]) -> None:
        """Record final figures, once; None and NaN are left out."""
        self.log_history([{"step": 0} | {name: value for name, value in metrics.items() if value is not None}])

    def log_seconds(self, name: str, seconds: float) -> None:
        """Record how long `name` took as the metric `seconds.<name>`; the first record stays."""
        self.log_metrics({f"{SECONDS}.{name}": seconds})

    def log_dataset(
        self, name: str, digest: str, source: str, *, context: str = "training", counts: Mapping[str, int] | None = None
    ) -> None:
        """Record a data set by its content.

        Args:
            name: how people call it.
            digest: sha256 of its content; the page shows the first 36 characters, a tag keeps all.
            source: its address.
            context: `training` or `evaluation`.
            counts: of images, for the page.
        """
        import json

        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=name,
            digest=digest[:_DIGEST_LENGTH],
            source_type="hand1000",
            source=json.dumps({"uri": source}),
            profile=json.dumps(dict(counts or {})),
        )
        entry = DatasetInput(dataset, [InputTag("mlflow.data.context", context)])
        with self.tracking.readable_errors():
            self.tracking.client.log_inputs(self.run_id, datasets=[entry])
        self.set_tags({f"hand1000.data.{name}": digest})

    def log_picture(self, name: str, image: "Image.Image") -> None:
        """Keep a picture as `pictures/<name>.png`, in place of an earlier one."""
        with self.tracking.readable_errors():
            self.tracking.client.log_image(self.run_id, image, artifact_file=f"pictures/{name}.png")

    def log_file(self, path: Path, folder: str | None = None) -> None:
        """Keep a file among the run's artifacts, in place of an earlier one."""
        with self.tracking.readable_errors():
            self.tracking.client.log_artifact(self.run_id, str(path), folder)

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags; the last value stays."""
        from mlflow.entities import RunTag

        with self.tracking.readable_errors():
            self.tracking.client.log_batch(self.run_id, tags=[RunTag(key, str(value)) for key, value in tags.items()])

    def finish(self, status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED") -> None:
        """Close the run; opening it again by its key resumes it."""
        with self.tracking.readable_errors():
            self.tracking.client.set_terminated(self.run_id, status)

    def _known_steps(self, name: str) -> set[int]:
        if name not in self._steps:
            history = self.tracking.client.get_metric_history(self.run_id, name)
            self._steps[name] = {metric.step for metric in history}
        return self._steps[name]

    def _write_metrics(self, batch: list["Metric"]) -> None:
        if batch:
            self.tracking.client.log_batch(self.run_id, metrics=batch)


class RunTracker(Run):
    """The parent run of a workflow run: made at the first call with a key, found and resumed at every later one.

    Args:
        experiment: its name; made when it is not there.
        run_key: names the workflow run, unique in the experiment; letters, digits and `._:/-`, at most 200.
        tracking: from `connection.connect`.

    Raises:
        Hand1000Error: a malformed key, a deleted experiment, or an MLflow that does not answer.
    """

    def __init__(self, experiment: str, run_key: str, tracking: Tracking) -> None:
        _check_key("run key", run_key)
        with tracking.exclusive(), tracking.readable_errors():
            experiment_id = _get_or_create_experiment(tracking, experiment)
            run_id = _get_or_create_run(tracking, experiment_id, run_key, {RUN_KEY: run_key})
        super().__init__(tracking, run_id, run_key, experiment_id)

    def stage(self, name: str) -> Run:
        """The child run of the stage `name`, made at the first call, found and resumed at every later one."""
        _check_key("stage", name)
        # A stage has its own tag instead of the parent's, so that a search for the parent finds the parent alone.
        tags = {STAGE: f"{self.run_key}#{name}", _PARENT: self.run_id}
        with self.tracking.exclusive(), self.tracking.readable_errors():
            run_id = _get_or_create_run(self.tracking, self.experiment_id, name, tags)
        return Run(self.tracking, run_id, self.run_key, self.experiment_id)

    def stage_seconds(self) -> dict[str, float]:
        """How long each stage took, its shards added up, in the order in which the stages began."""
        with self.tracking.readable_errors():
            children = self.tracking.client.search_runs(
                [self.experiment_id], f"tags.`{_PARENT}` = '{self.run_id}'", order_by=["attributes.start_time ASC"]
            )
        return {
            child.info.run_name: sum(
                value for name, value in child.data.metrics.items() if name.startswith(f"{SECONDS}.")
            )
            for child in children
        }


def _get_or_create_experiment(tracking: Tracking, name: str) -> str:
    from mlflow.exceptions import MlflowException

    client = tracking.client
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        root = tracking.artifact_root
        try:
            return client.create_experiment(name, artifact_location=root and f"{root}/{_file_name(name)}")
        except MlflowException as error:
            # Another process was faster.
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(name)
    if experiment is None or experiment.lifecycle_stage != "active":
        raise Hand1000Error(f"experiment {name!r} is deleted in MLflow; restore it there or choose another name")
    return experiment.experiment_id


def _get_or_create_run(tracking: Tracking, experiment_id: str, name: str, tags: dict[str, str]) -> str:
    client = tracking.client
    key, value = next(iter(tags.items()))

    def matching() -> list:
        return client.search_runs(
            [experiment_id], f"tags.`{key}` = '{value}'", order_by=["attributes.start_time ASC"], max_results=100
        )

    found, mine = matching(), None
    if not found:
        mine = client.create_run(experiment_id, start_time=int(time.time() * 1000), tags=tags, run_name=name)
        # Without a lock two processes may both have made one: all keep the older, and its maker removes the other.
        found = matching() or [mine]
    run = min(found, key=lambda each: (each.info.start_time, each.info.run_id))
    if mine is not None and mine.info.run_id != run.info.run_id:
        client.delete_run(mine.info.run_id)
    if run.info.status != "RUNNING":
        client.update_run(run.info.run_id, status="RUNNING")
    return run.info.run_id


def _flattened(values: Mapping[str, object], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not math.isnan(value)


def _check_key(what: str, text: str) -> None:
    if not _KEY.fullmatch(text):
        raise Hand1000Error(f"{what} {text!r}: use letters, digits and ._:/- only, at most 200")


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)
