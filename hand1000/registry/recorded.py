"""What an embedded MLflow holds of a finished run, kept beside its database until that changes.

To open MLflow takes seconds, most of them for imports. A repeated run that computes nothing reads this file instead: as
long as no byte of the database has been written since, MLflow would answer the same. Any change of the database, by
whomever, and any missing file makes the notes void; then MLflow itself is asked, as without them.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from hand1000.core.errors import Hand1000Error
from hand1000.registry.connection import Tracking
from hand1000.registry.tracking import STAGE, find_run, has_ended, read_children
from hand1000.registry.versions import ARTIFACTS, RegisteredVersion, find_champion
from hand1000.storage.records import read_record, write_record

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun

logger = logging.getLogger(__name__)

SUFFIX = ".recorded.json"
"""Suffix of the file beside the database, in place of the suffix of the database."""

_MAX_RUNS = 100
_HEADER_BYTES = 100
_CHANGES = slice(24, 28)
_JOURNALS = ("-journal", "-wal")


class RecordedRun(BaseModel):
    """A run whose results MLflow has to the end.

    Attributes:
        run_id: MLflow's id.
        champion: Name, version and tags of the champion of the run's gestures; None without one.
        artifacts: Stage, part and address of each recorded artifact.
        files: Path below the database's folder and size of each file of the parent run.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    run_id: str
    champion: tuple[str, int, dict[str, str]] | None
    artifacts: frozenset[tuple[str, str, str]]
    files: tuple[tuple[str, int], ...]

    def find_champion(self) -> RegisteredVersion | None:
        """Return the version in use, or None."""
        return RegisteredVersion(*self.champion) if self.champion else None

    def holds(self, stage: str, part: str, address: str) -> bool:
        """Return whether an artifact is recorded as what this part of a stage made."""
        return (stage, part, address) in self.artifacts


class _Notes(BaseModel):
    """The content of the file: the state of the database, and by run key what it held then."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: list[int | str]
    runs: dict[str, RecordedRun]


def find_recorded_run(database: Path, run_key: str) -> RecordedRun | None:
    """Return the notes on a run, or None if there are none, or the database or a file of the run has changed since."""
    state = _read_state(database)
    notes = _read_notes(database) if state else None
    if notes is None or notes.state != state or run_key not in notes.runs:
        return None
    run = notes.runs[run_key]
    return run if all(_has_size(database.parent / name, size) for name, size in run.files) else None


def note_recorded_run(tracking: Tracking, run_key: str, gestures: tuple[str, ...]) -> None:
    """Note what an embedded MLflow holds of a run that has ended; do nothing for a server or an unfinished run.

    Only what MLflow itself answers is noted, and only if its database did not change meanwhile. A failure is logged.
    """
    database = tracking.database
    state = _read_state(database) if database else None
    run = find_run(tracking, run_key)
    if database is None or state is None or run is None or not has_ended(run) or run.info.status == "RUNNING":
        return
    with tracking.readable_errors():
        children = read_children(tracking, run.info.experiment_id, run.info.run_id)
        files = _list_files(run, database.parent)
    champion = find_champion(tracking, gestures)
    if files is None or any(child.info.status != "FINISHED" for child in children):
        return
    recorded = RecordedRun(
        run_id=run.info.run_id,
        champion=(champion.name, champion.version, dict(champion.tags)) if champion else None,
        artifacts=frozenset(
            (child.data.tags[STAGE].rpartition("#")[2], tag.removeprefix(ARTIFACTS), address)
            for child in children
            for tag, address in child.data.tags.items()
            if tag.startswith(ARTIFACTS)
        ),
        files=files,
    )
    before = _read_notes(database)
    others = before.runs if before and before.state == state else {}
    runs = {**others, run_key: recorded}
    kept = dict(list(runs.items())[-_MAX_RUNS:])
    if _read_state(database) == state:
        try:
            write_record(_notes_path(database), _Notes(state=state, runs=kept))
        except (Hand1000Error, OSError) as error:
            logger.debug("%s: %s", _notes_path(database), error)


def _notes_path(database: Path) -> Path:
    return database.with_suffix(SUFFIX)


def _read_notes(database: Path) -> _Notes | None:
    try:
        value = read_record(_notes_path(database), required=False)
        return None if value is None else _Notes.model_validate(value)
    except (Hand1000Error, ValidationError):
        return None


def _read_state(database: Path) -> list[int | str] | None:
    """Return what differs after any write to the database; None if there is none, or a write is under way.

    sqlite counts the transactions that changed a file in its header, unless it uses a write-ahead log.
    """
    try:
        if any(database.with_name(f"{database.name}{suffix}").exists() for suffix in _JOURNALS):
            return None
        with database.open("rb") as file:
            header = file.read(_HEADER_BYTES)
        status = database.stat()
    except OSError:
        return None
    if len(header) < _HEADER_BYTES:
        return None
    return [str(database), status.st_ino, status.st_size, status.st_mtime_ns, header[_CHANGES].hex()]


def _list_files(run: "MlflowRun", folder: Path) -> tuple[tuple[str, int], ...] | None:
    """Return the names below `folder` and the sizes of the run's files; None if they are elsewhere."""
    location = Path(unquote(urlsplit(run.info.artifact_uri).path))
    if not location.is_relative_to(folder):
        return None
    paths = sorted(path for path in location.rglob("*") if path.is_file())
    return tuple((path.relative_to(folder).as_posix(), path.stat().st_size) for path in paths)


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False
