"""Records that MLflow has not received yet: files below `<root>/unsent/`, removed when they are sent.

The name of a file is its time and the digest of its content. Sending one twice changes nothing in MLflow, so that a
process may be killed between the two steps.
"""

import logging
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from hand1000.core.errors import Hand1000Error, TransientError
from hand1000.storage.backend import StorageBackend
from hand1000.storage.digests import canonical_json, digest_bytes

logger = logging.getLogger(__name__)

FOLDER, REFUSED = "unsent", "unsent-refused"
"""Folders below the root: what waits, and what MLflow answered with an error that no other attempt changes."""

MAX_ROWS = 20_000
"""Rows of one curve that wait; of more, every second one is dropped. The artifact of the task has all of them."""

MAX_FILE_BYTES = 64 << 20
"""Size of a file that waits; a larger one is recorded by the next run that finds the artifact it belongs to."""

_MERGED_AT = 32
_ORPHAN_NANOSECONDS = 24 * 3600 * 10**9
_NAME = re.compile(r"(?P<time>[0-9]{20})-(?P<digest>[0-9a-f]{64})\.json")
_FILE = re.compile(r"[0-9]{20}-[0-9a-f]{64}\.bin")


class Call(BaseModel):
    """One method of `Run` with its arguments."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Literal["log_params", "log_history", "log_model_metrics", "log_dataset", "log_file", "set_tags", "finish"]
    arguments: dict[str, JsonValue]


class UnsentRecord(BaseModel):
    """What one process could not record about one run, in order.

    Attributes:
        run_key: Key of the workflow run.
        run_name: Name of the parent run, if it is new.
        stage: Name of the child run; "" is the parent.
        process: The process that worked on it; see `processes`.
        seen: When that made the last of the calls, in seconds since 1970.
        calls: What is to be recorded.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    run_key: str
    run_name: str = ""
    stage: str = ""
    process: str = ""
    seen: float = 0.0
    calls: tuple[Call, ...]


@dataclass(frozen=True)
class WaitingRun:
    """The unsent records of one run.

    Attributes:
        run_key: Key of the workflow run.
        stage: Name of the child run; "" is the parent.
        records: Number of calls that wait.
        since: When the first of them was made.
    """

    run_key: str
    stage: str
    records: int
    since: datetime


class CallReceiver(Protocol):
    """Where the calls of a record go."""

    def receive(self, record: UnsentRecord, call: Call, file: bytes | None) -> None:
        """Record one call; `file` is the content for `log_file`."""


class Outbox:
    """The unsent records below one artifact root.

    Args:
        backend: Storage at the root.
    """

    def __init__(self, backend: StorageBackend) -> None:
        self.backend = backend
        self._own: dict[tuple[str, str], list[tuple[str, UnsentRecord]]] = {}

    @property
    def address(self) -> str:
        """The folder of the records, for messages."""
        return f"{self.backend.root}/{FOLDER}"

    def add(self, record: UnsentRecord) -> None:
        """Keep a record until it is sent.

        Raises:
            Hand1000Error: The storage refuses.
        """
        own = self._own.setdefault((record.run_key, record.stage), [])
        own.append((self._write(record, time.time_ns()), record))
        if len(own) >= _MERGED_AT:
            # In the place of the oldest, so that the order stays. A process killed on the way leaves both.
            merged = record.model_copy(update={"calls": merge_calls(call for _, part in own for call in part.calls)})
            key = self._write(merged, _time_of(own[0][0]))
            for old, _ in own:
                if old != key:
                    self.backend.remove(old)
            own[:] = [(key, merged)]

    def add_file(self, path: Path) -> str:
        """Keep the content of a file; return the name by which `log_file` of a record refers to it.

        Raises:
            Hand1000Error: The file is too large to wait, or the storage refuses.
        """
        if path.stat().st_size > MAX_FILE_BYTES:
            raise Hand1000Error(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB; run again when MLflow answers")
        content = path.read_bytes()
        name = f"{time.time_ns():020d}-{digest_bytes(content)}.bin"
        self.backend.write(f"{FOLDER}/{name}", content)
        return name

    def keys(self) -> list[str]:
        """Return the keys of the records that wait, the oldest first."""
        keys = (file.key for file in self.backend.list_files(FOLDER))
        return sorted(key for key in keys if _NAME.fullmatch(key.removeprefix(f"{FOLDER}/")))

    def read(self, key: str) -> UnsentRecord | None:
        """Return the record at `key`; None if another process has sent it, or if it is damaged, with a warning."""
        data = self.backend.read(key)
        if data is None:
            return None
        match = _NAME.fullmatch(key.rpartition("/")[2])
        try:
            if match is None or digest_bytes(data) != match["digest"]:
                raise ValueError("its bytes are not those that were written")
            return UnsentRecord.model_validate_json(data)
        except (ValidationError, ValueError) as error:
            logger.warning("%s/%s: dropped: %s", self.backend.root, key, str(error)[:200])
            self.backend.remove(key)
            return None

    def waiting_runs(self) -> list[WaitingRun]:
        """Return the runs with records that wait, the longest waiting first."""
        counts: dict[tuple[str, str], int] = {}
        since: dict[tuple[str, str], int] = {}
        for key in self.keys():
            if record := self.read(key):
                run = (record.run_key, record.stage)
                counts[run] = counts.get(run, 0) + len(record.calls)
                since.setdefault(run, _time_of(key))
        return [WaitingRun(*run, count, datetime.fromtimestamp(since[run] / 1e9, UTC)) for run, count in counts.items()]

    def send(self, receiver: CallReceiver) -> int:
        """Send all records that wait, and remove each one that has arrived; return how many have.

        A record that MLflow refuses is moved to `unsent-refused`, with a warning.

        Raises:
            TransientError: MLflow is away; what was not sent waits.
        """
        sent = 0
        self._own.clear()
        for key in self.keys():
            record = self.read(key)
            if record is None:
                continue
            try:
                for call in record.calls:
                    receiver.receive(record, call, self._read_file(call))
                sent += 1
            except TransientError:
                raise
            except Hand1000Error as error:
                self.refuse(record, error, _time_of(key))
            self.backend.remove(key)
            for name in _files_of(record):
                self.backend.remove(f"{FOLDER}/{name}")
        self._remove_orphans()
        return sent

    def refuse(self, record: UnsentRecord, error: Hand1000Error, nanoseconds: int) -> None:
        """Keep a record that MLflow answered with an error, where nothing sends it again, with a warning.

        Args:
            record: The record.
            error: The answer.
            nanoseconds: When the record was made, since 1970.

        Raises:
            Hand1000Error: The storage refuses.
        """
        folder = f"{self.backend.root}/{REFUSED}"
        logger.warning("run %s: MLflow refuses a record, which is kept in %s: %s", record.run_key, folder, error)
        self._write(record, nanoseconds, REFUSED)

    def _read_file(self, call: Call) -> bytes | None:
        name = call.arguments.get("content")
        if call.method != "log_file" or not isinstance(name, str) or not _FILE.fullmatch(name):
            return None
        return self.backend.read(f"{FOLDER}/{name}")

    def _remove_orphans(self) -> None:
        """Remove old files that no record refers to, because their process was killed before it wrote the record."""
        oldest = time.time_ns() - _ORPHAN_NANOSECONDS
        for file in list(self.backend.list_files(FOLDER)):
            name = file.key.removeprefix(f"{FOLDER}/")
            if _FILE.fullmatch(name) and int(name.partition("-")[0]) < oldest:
                self.backend.remove(file.key)

    def _write(self, record: UnsentRecord, nanoseconds: int, folder: str = FOLDER) -> str:
        data = canonical_json(record).encode()
        key = f"{folder}/{nanoseconds:020d}-{digest_bytes(data)}.json"
        self.backend.write(key, data)
        return key


def merge_calls(calls: Iterable[Call]) -> tuple[Call, ...]:
    """Return the calls with neighboring curves joined, none with more than `MAX_ROWS` rows."""
    merged: list[Call] = []
    for call in calls:
        if call.method == "log_history" and merged and merged[-1].method == "log_history":
            rows = [*_rows(merged[-1]), *_rows(call)]
            if len(rows) > MAX_ROWS:
                logger.warning("more than %d rows of a curve wait for MLflow: every second one is dropped", MAX_ROWS)
                rows = rows[::-2][::-1]  # The last row stays.
            merged[-1] = Call(method="log_history", arguments={"rows": rows})
        else:
            merged.append(call)
    return tuple(merged)


def _time_of(key: str) -> int:
    """Return when a record was made, in nanoseconds since 1970."""
    return int(key.rpartition("/")[2].partition("-")[0])


def _rows(call: Call) -> list[Any]:
    rows = call.arguments["rows"]
    return rows if isinstance(rows, list) else []


def _files_of(record: UnsentRecord) -> list[str]:
    """Return the names of the files that a record refers to."""
    arguments: Iterable[Mapping[str, JsonValue]] = (call.arguments for call in record.calls)
    names = (values.get("content") for values in arguments)
    return [name for name in names if isinstance(name, str) and _FILE.fullmatch(name)]
