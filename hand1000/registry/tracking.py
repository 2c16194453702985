"""MLflow runs: one parent per workflow run, one child per stage, both found again by their tags on a retry."""

import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from hand1000.core.errors import Hand1000Error
from hand1000.registry.connection import Tracking, read_pages
from hand1000.registry.processes import HEARTBEAT, PROCESS, is_dead, this_process
from hand1000.registry.run import PEAK_GIB, SECONDS, Run
from hand1000.registry.source import source_tags
from hand1000.registry.versions import ENDED, RUN_KEY

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun

STAGE = "hand1000.stage"
"""Tag of a stage's run: the key of the workflow run with the name of the stage."""

PARENT = "mlflow.parentRunId"
"""MLflow's own tag of a child run: the id of its parent."""

EXPERIMENT = "hand1000"
"""Experiment of all runs."""

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,199}")


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

    def child_run(self, name: str, *, owned: bool = True) -> Run:
        """Return the run of the stage `name`, created by the first call and resumed by every later one.

        Args:
            name: Name of the stage.
            owned: Whether this process now works on the stage, so that the run counts as abandoned once it is dead.
        """
        from mlflow.entities import RunTag

        _check_key("stage", name)
        # The tag differs from the parent's, so that a search for the parent does not find the children.
        tags = {STAGE: f"{self.run_key}#{name}", PARENT: self.run_id}
        with self.tracking.lock(), self.tracking.readable_errors():
            run_id = _get_or_create_run(self.tracking, self.experiment_id, name, tags)
            if owned:
                owner = [RunTag(PROCESS, this_process()), RunTag(HEARTBEAT, str(int(time.time())))]
                self.tracking.client.log_batch(run_id, tags=owner)
        return Run(self.tracking, run_id, self.run_key, self.experiment_id)

    def end_abandoned_stages(self) -> list[str]:
        """Mark the stages that a dead process left running as killed, until they are resumed; return their names.

        See `is_dead` for processes of other hosts. A workflow calls this before its first stage.
        """
        with self.tracking.readable_errors():
            return _end_abandoned_stages(self.tracking, self._children())

    def _children(self) -> "list[MlflowRun]":
        return read_children(self.tracking, self.experiment_id, self.run_id)

    def stage_seconds(self) -> dict[str, float]:
        """Return the duration of each stage, summed over its shards, in the order in which the stages began."""
        return self._aggregate_stages(SECONDS, sum)

    def stage_peaks(self) -> dict[str, float]:
        """Return the peak memory of each stage in GiB, the largest of its shards; stages without one are omitted."""
        return {stage: peak for stage, peak in self._aggregate_stages(PEAK_GIB, max).items() if peak}

    def _aggregate_stages(self, prefix: str, aggregate: Callable[[list[float]], float]) -> dict[str, float]:
        """Return the aggregate of the metrics `<prefix>.<part>` of each stage; 0 for a stage without any."""
        with self.tracking.readable_errors():
            children = self._children()
        values = {
            child.info.run_name: [value for name, value in child.data.metrics.items() if name.startswith(f"{prefix}.")]
            for child in children
        }
        return {stage: aggregate(parts) if parts else 0.0 for stage, parts in values.items()}


def find_run(tracking: Tracking, run_key: str) -> "MlflowRun | None":
    """Return the parent run with a key, or None; unlike a `RunTracker` this does not mark an ended one as running."""
    if not _KEY.fullmatch(run_key):
        return None
    with tracking.readable_errors():
        experiment = tracking.client.get_experiment_by_name(EXPERIMENT)
        if experiment is None or experiment.lifecycle_stage != "active":
            return None
        runs = tracking.client.search_runs(
            [experiment.experiment_id], f"tags.`{RUN_KEY}` = '{run_key}'", order_by=["attributes.start_time ASC"]
        )
    return min(runs, key=lambda run: (run.info.start_time, run.info.run_id), default=None)


def has_ended(run: "MlflowRun") -> bool:
    """Return whether a parent run recorded its results to the end, whatever happened to it later."""
    return run.info.status == "FINISHED" or ENDED in run.data.tags


def close_ended_run(tracking: Tracking, run: "MlflowRun") -> None:
    """Mark stages that a dead process left running as killed; without others, give the run the status it ended with.

    A process that is killed while it repeats a run leaves both as running, and retention keeps what they use.
    """
    with tracking.readable_errors():
        children = read_children(tracking, run.info.experiment_id, run.info.run_id)
        running = [child for child in children if child.info.status == "RUNNING"]
        is_at_work = len(_end_abandoned_stages(tracking, children)) < len(running)
        if run.info.status == "RUNNING" and ENDED in run.data.tags and not is_at_work:
            tracking.client.set_terminated(run.info.run_id, run.data.tags[ENDED])


def read_children(tracking: Tracking, experiment_id: str, run_id: str) -> "list[MlflowRun]":
    """Return the runs of the stages of a parent run, the oldest first."""
    search, order = tracking.client.search_runs, ["attributes.start_time ASC"]
    return list(read_pages(search, [experiment_id], f"tags.`{PARENT}` = '{run_id}'", order_by=order))


def _end_abandoned_stages(tracking: Tracking, children: "list[MlflowRun]") -> list[str]:
    abandoned = [child for child in children if child.info.status == "RUNNING" and _is_abandoned(child)]
    for child in abandoned:
        tracking.client.set_terminated(child.info.run_id, "KILLED")
    return [child.info.run_name for child in abandoned]


def _is_abandoned(child: "MlflowRun") -> bool:
    tags, start = child.data.tags, child.info.start_time / 1000
    heartbeat = tags.get(HEARTBEAT, "")
    return is_dead(tags.get(PROCESS, ""), float(heartbeat) if heartbeat.isdecimal() else start)


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


def _check_key(role: str, text: str) -> None:
    if not _KEY.fullmatch(text):
        raise Hand1000Error(f"{role} {text!r}: use letters, digits and ._:/- only, at most 200")
