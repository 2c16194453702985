"""Records of a run that never hold up its work: what MLflow cannot take now waits on disk until it can.

Work goes on while MLflow is away. `RunTracker` is for what needs MLflow itself, such as a registration.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from hand1000.core.errors import Hand1000Error, TransientError
from hand1000.registry.connection import Tracking
from hand1000.registry.database import check_unlocked
from hand1000.registry.processes import HEARTBEAT, HEARTBEAT_SECONDS, is_dead, this_process
from hand1000.registry.run import PEAK_GIB, SECONDS, Run, flatten
from hand1000.registry.source import LoggedDataset
from hand1000.registry.tracking import EXPERIMENT, RunTracker, find_run
from hand1000.registry.unsent import Call, Outbox, UnsentRecord
from hand1000.storage.keys import safe_join
from hand1000.storage.scratch import temporary_folder

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 15.0, 300.0
"""Time without an attempt after a failure; it doubles with each further one."""

_SHORT_REQUESTS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


@dataclass
class Outage:
    """Whether MLflow was away at the last attempt, and when the next one is due.

    Attributes:
        pause: Seconds of the present pause; 0 if MLflow has answered.
        until: Monotonic time of its end.
        is_passing: Whether the last attempt failed by an error that may pass without a person.
    """

    pause: float = 0.0
    until: float = 0.0
    is_passing: bool = True

    def is_pausing(self) -> bool:
        """Return whether an attempt would be too early."""
        return time.monotonic() < self.until

    def prolong(self) -> None:
        """Note a failed attempt."""
        self.pause = min(2 * self.pause, MAX_PAUSE_SECONDS) or FIRST_PAUSE_SECONDS
        self.until = time.monotonic() + self.pause

    def end(self) -> bool:
        """Note a successful attempt; return whether one had failed before."""
        was_away = self.pause > 0
        self.pause = self.until = 0.0
        return was_away


@dataclass
class Recording:
    """Where the runs of one artifact root are recorded; all of its recorders share what is known about an outage.

    Attributes:
        outbox: What waits.
        connect: Opens the connection to MLflow; it must not wait long.
    """

    outbox: Outbox
    connect: Callable[[], Tracking]
    outage: Outage = field(default_factory=Outage)

    def send(self, tracking: Tracking) -> None:
        """Send what waits, and log how much that was.

        Raises:
            TransientError: MLflow is away again.
        """
        if sent := send_waiting(self.outbox, tracking):
            logger.warning("MLflow at %s: received %d records that waited", tracking.redacted_uri, sent)


def send_waiting(outbox: Outbox, tracking: Tracking) -> int:
    """Send the records that wait, and mark the runs as killed whose process has died without an end.

    Returns:
        The number of records that have arrived.

    Raises:
        TransientError: MLflow is away.
    """
    sender = RunSender(tracking)
    sent = outbox.send(sender)
    sender.end_abandoned()
    return sent


class RunSender:
    """Records calls in the runs they belong to, which are created if necessary."""

    def __init__(self, tracking: Tracking) -> None:
        self._tracking = tracking
        self._runs: dict[tuple[str, str], Run] = {}
        self._unfinished: dict[tuple[str, str], UnsentRecord] = {}
        self._ended: dict[str, Any] = {}

    def receive(self, record: UnsentRecord, call: Call, file: bytes | None) -> None:
        """Record one call; see `apply_call`."""
        key = (record.run_key, record.stage)
        if key not in self._runs:
            before = find_run(self._tracking, record.run_key)
            if before and before.info.status != "RUNNING":
                self._ended.setdefault(record.run_key, before.info.status)
            tracker = RunTracker(EXPERIMENT, record.run_key, self._tracking, name=record.run_name)
            self._runs[key] = tracker.child_run(record.stage, owned=False) if record.stage else tracker
        apply_call(self._runs[key], call, file)
        if call.method == "finish":
            self._unfinished.pop(key, None)
            if not record.stage:
                self._ended.pop(record.run_key, None)
        else:
            self._unfinished[key] = record

    def end_abandoned(self) -> None:
        """Mark the runs as killed whose process has died without an end; a run that had ended stays as it was."""
        for key, record in self._unfinished.items():
            if is_dead(record.process, record.seen) and (key[1] or key[0] not in self._ended):
                self._runs[key].finish("KILLED")
        for run_key, status in self._ended.items():
            RunTracker(EXPERIMENT, run_key, self._tracking).finish(status)


def apply_call(run: Run, call: Call, file: bytes | None = None) -> None:
    """Record a call; what is recorded already stays.

    Args:
        run: The run.
        call: What to record.
        file: Content for `log_file`; None if it is lost, and then nothing is recorded.

    Raises:
        Hand1000Error: The arguments are not those of the method, or MLflow refuses.
    """
    values: dict[str, Any] = dict(call.arguments)
    try:
        if "dataset" in values:
            values["dataset"] = LoggedDataset(**values["dataset"])
        if call.method != "log_file":
            getattr(run, call.method)(**values)
        elif file is not None:
            with temporary_folder(run.tracking.scratch_parent) as folder:
                path = safe_join(folder, values["name"])
                path.write_bytes(file)
                run.log_file(path, values["folder"])
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise Hand1000Error(f"a record of run {run.run_key} is malformed: {call.method}: {error!r}") from error


class RunRecorder:
    """A run that is recorded in MLflow, or on disk while MLflow does not answer.

    No method raises an error because of MLflow, and none waits for it longer than some seconds, at most once in each
    pause of the outage.

    Args:
        recording: Where the runs of the artifact root are recorded.
        run_key: Key of the workflow run.
        name: Name of a new run on MLflow's pages.
        stage: Name of the child run; "" is the parent.
    """

    def __init__(self, recording: Recording, run_key: str, *, name: str = "", stage: str = "") -> None:
        self._recording = recording
        self._run_key, self._name, self._stage = run_key, name, stage
        self._run: Run | None = None
        self._next_heartbeat = time.monotonic() + HEARTBEAT_SECONDS

    def child_run(self, stage: str) -> "RunRecorder":
        """Return the recorder of a stage, whose run is now marked as running."""
        child = RunRecorder(self._recording, self._run_key, name=self._name, stage=stage)
        child._attempt(lambda run: None)
        return child

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record settings; see `Run.log_params`."""
        self._record("log_params", params={name: _escape(text) for name, text in flatten(params)})

    def log_history(self, rows: Any) -> None:
        """Record curves; see `Run.log_history`."""
        self._record("log_history", rows=[_plain(row) for row in rows])

    def log_metrics(self, metrics: Mapping[str, float | None]) -> None:
        """Record final values; see `Run.log_metrics`."""
        self.log_history([{"step": 0, **metrics}])

    def log_model_metrics(self, model_id: str, metrics: Mapping[str, float | None], dataset: LoggedDataset) -> None:
        """Record final values of the run and of a logged model; see `Run.log_model_metrics`."""
        self._record("log_model_metrics", model_id=model_id, metrics=_plain(metrics), dataset=asdict(dataset))

    def log_dataset(self, dataset: LoggedDataset, context: Literal["training", "testing"]) -> None:
        """Record a dataset as an input; see `Run.log_dataset`."""
        self._record("log_dataset", dataset=asdict(dataset), context=context)

    def log_seconds(self, name: str, seconds: float) -> None:
        """Record a duration; see `Run.log_seconds`."""
        self.log_metrics({f"{SECONDS}.{name}": seconds})

    def log_peak(self, name: str, peak_bytes: int) -> None:
        """Record a peak of memory; see `Run.log_peak`."""
        self.log_metrics({f"{PEAK_GIB}.{name}": peak_bytes / 2**30})

    def log_file(self, path: Path, folder: str | None = None) -> None:
        """Save a file among the run's artifacts; see `Run.log_file`."""
        if not self._attempt(lambda run: run.log_file(path, folder)):
            with self._survive():
                content = self._recording.outbox.add_file(path)
                arguments: dict[str, Any] = {"name": path.name, "folder": folder, "content": content}
                self._recording.outbox.add(self._make_record(Call(method="log_file", arguments=arguments)))

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags; see `Run.set_tags`."""
        self._record("set_tags", tags={name: _escape(str(value)) for name, value in tags.items()})

    def send_heartbeat(self) -> None:
        """Note in the run of a stage that this process is at work, at most once in `HEARTBEAT_SECONDS`."""
        if time.monotonic() >= self._next_heartbeat:
            self._next_heartbeat = time.monotonic() + HEARTBEAT_SECONDS
            self._attempt(lambda run: run.set_tags({HEARTBEAT: int(time.time())}))

    def finish(self, status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED") -> None:
        """Close the run; see `Run.finish`."""
        self._record("finish", status=status, end_time=int(time.time() * 1000))

    def _record(self, method: Any, **arguments: Any) -> None:
        call = Call(method=method, arguments=arguments)
        if not self._attempt(lambda run: apply_call(run, call), call):
            with self._survive():
                self._recording.outbox.add(self._make_record(call))

    def _make_record(self, call: Call) -> UnsentRecord:
        return UnsentRecord(
            run_key=self._run_key,
            run_name=self._name,
            stage=self._stage,
            process=this_process(),
            seen=time.time(),
            calls=(call,),
        )

    def _attempt(self, action: Callable[[Run], None], call: Call | None = None) -> bool:
        """Call `action` with the run unless MLflow is away; return False if that is to be done later.

        What MLflow refuses for good is not: `call` is kept beside what waits, with a warning at once.
        """
        outage = self._recording.outage
        if outage.is_pausing():
            return False
        refusal: Hand1000Error | None = None
        try:
            with _short_requests():
                if outage.pause:
                    self._run = None  # What other processes have sent in the meantime is read again.
                run = self._open()
                try:
                    action(run)
                except TransientError:
                    raise
                except Hand1000Error as error:
                    refusal = error
        except Hand1000Error as error:
            self._run = None
            # An error that does not pass by itself needs a person, also after one of a server that is away.
            if not outage.pause or (outage.is_passing and not isinstance(error, TransientError)):
                logger.warning(
                    "the work goes on without MLflow, whose records wait in %s: %s",
                    self._recording.outbox.address,
                    error,
                )
            outage.is_passing = isinstance(error, TransientError)
            outage.prolong()
            return False
        if outage.end():
            logger.warning("MLflow answers again")
        if refusal is not None:
            self._refuse(call, refusal)
        return True

    def _refuse(self, call: Call | None, error: Hand1000Error) -> None:
        if call is None:
            logger.warning("run %s: MLflow refuses a record: %s", self._run_key, error)
            return
        with self._survive():
            self._recording.outbox.refuse(self._make_record(call), error, time.time_ns())

    def _open(self) -> Run:
        if self._run is None:
            tracking = self._recording.connect()
            self._check(tracking)
            self._recording.send(tracking)
            tracker = RunTracker(EXPERIMENT, self._run_key, tracking, name=self._name)
            self._run = tracker.child_run(self._stage) if self._stage else tracker
        else:
            self._check(self._run.tracking)
        return self._run

    def _check(self, tracking: Tracking) -> None:
        # MLflow itself would wait for 20 s at each statement.
        if tracking.database:
            check_unlocked(tracking.database)

    @contextmanager
    def _survive(self) -> Iterator[None]:
        """Go on without a record that cannot be kept either, with a warning."""
        try:
            yield
        except (Hand1000Error, OSError, ValueError) as error:
            logger.warning("a record of run %s for MLflow is lost: %s", self._run_key, error)


@contextmanager
def _short_requests() -> Iterator[None]:
    """Let MLflow's requests fail within seconds, where it would by default repeat them for four minutes."""
    added = [name for name in _SHORT_REQUESTS if name not in os.environ]
    os.environ.update({name: _SHORT_REQUESTS[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers as JSON has them; those that are not finite, which MLflow does not record, are left out."""
    numbers = {name: value.item() if hasattr(value, "item") else value for name, value in values.items()}
    return {
        name: value for name, value in numbers.items() if isinstance(value, int | float) and abs(value) < float("inf")
    }


def _escape(text: str) -> str:
    """Return the text with what UTF-8 cannot encode, such as bytes of a file name, as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()
