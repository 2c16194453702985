"""The sqlite file of an embedded MLflow: made beside its place and moved there, and checked before MLflow opens it.

MLflow migrates a new file in place, in dozens of steps. One that is interrupted leaves a file which MLflow can neither
use nor complete.
"""

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from hand1000.core.errors import Hand1000Error, TransientError, one_line, translate_write_errors

DATABASE = "mlflow.db"
"""Name of the file in its folder."""

SQLITE = "sqlite:///"
"""Prefix of the URI of a file."""

_REVISION_TABLE = "alembic_version"
_RECORDS = ("experiments", "runs", "registered_models")
_BUSY_SECONDS = 60.0
_COMPANIONS = ("-journal", "-wal", "-shm")
_REMEDY = "restore it from a copy, or move it away: the next run makes a new one and records its results again"


def prepare_database(database: Path) -> None:
    """Make the database unless there is one; the caller holds the lock of its folder.

    A file in which an interrupted run left the beginning of a database, without any record, is replaced.

    Raises:
        Hand1000Error: The file is damaged or not MLflow's, or the folder is not writable or full.
    """
    if has_database(database):
        return
    for leftover in database.parent.glob(f".{database.name}.*.part*"):
        # The lock is ours, so that whoever made it is dead.
        leftover.unlink(missing_ok=True)
    part = database.with_name(f".{database.name}.{uuid4().hex}.part")
    try:
        with translate_database_errors(database), translate_write_errors(database.parent):
            _migrate(part)
            # A journal of the file that is replaced would otherwise be played back into the new one.
            _remove_companions(database)
            os.replace(part, database)
    finally:
        part.unlink(missing_ok=True)
        _remove_companions(part)


def has_database(database: Path) -> bool:
    """Return whether there is a complete database; False also for an empty or unfinished one without any record.

    Raises:
        Hand1000Error: The file is damaged, or not MLflow's.
    """
    try:
        if database.stat().st_size == 0:
            return False
    except FileNotFoundError:
        return False
    with translate_database_errors(database), closing(sqlite3.connect(database, timeout=_BUSY_SECONDS)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if any(name in tables and _has_rows(connection, name) for name in _RECORDS):
            return True
        if _REVISION_TABLE in tables and _is_migrated(connection):
            return True
    if tables and _REVISION_TABLE not in tables and not tables <= _initial_tables():
        raise Hand1000Error(f"{database}: a database of another program; name a database of MLflow that you may write")
    return False


def check_unlocked(database: Path, seconds: float = 2.0) -> None:
    """Raise a `TransientError` if another program holds the database for longer than `seconds`."""
    with translate_database_errors(database), closing(sqlite3.connect(database, timeout=seconds)) as connection:
        connection.isolation_level = None
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")


def is_writable(database: Path) -> bool:
    """Return whether this process may write the database, and the journal and lock beside it."""
    return os.access(database.parent, os.W_OK) and (not database.exists() or os.access(database, os.W_OK))


@contextmanager
def translate_database_errors(database: Path) -> Iterator[None]:
    """Turn the errors of sqlite, SQLAlchemy and MLflow at opening a database into one line that names the remedy.

    Raises:
        TransientError: Another program holds the database.
        Hand1000Error: It is damaged, read-only, on a full disk, or made by another version of MLflow.
    """
    from alembic.util.exc import CommandError
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    silence_database_log()
    try:
        yield
    except (sqlite3.Error, SQLAlchemyError, MlflowException, CommandError) as error:
        text = one_line(getattr(error, "orig", None) or error)
        raise database_error(database, text) from error


def silence_database_log() -> None:
    """Keep MLflow from logging the steps of a migration, and each error with its traceback before it raises it."""
    logging.getLogger("mlflow.store.db.utils").addFilter(_is_message_of_its_own)


def _is_message_of_its_own(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR and not record.exc_info


def database_error(database: Path, text: str) -> Hand1000Error:
    """Return the error that a user reads in place of sqlite's or MLflow's message `text` about a database."""
    if "is locked" in text:
        return TransientError(f"{database}: another program has locked it; end that program, or try again later")
    if "is full" in text:
        return Hand1000Error(f"{database.parent}: no space left; free some or choose another folder, then run again")
    if "readonly" in text or "unable to open" in text:
        return Hand1000Error(f"{database}: not writable; change its rights, or copy its folder and name the copy")
    if "out-of-date database schema" in text:
        return Hand1000Error(
            f"{database}: made by another version of MLflow; copy it, then run `mlflow db upgrade {SQLITE}{database}`, "
            "or use that version"
        )
    if "not a database" in text:
        return Hand1000Error(f"{database}: file is not a database; name a database of MLflow that you may write")
    return Hand1000Error(f"{database}: damaged: {text[:200]}; {_REMEDY}")


def _migrate(path: Path) -> None:
    """Write a new, empty database of MLflow."""
    from mlflow.store.db.utils import _initialize_tables
    from sqlalchemy import create_engine, event
    from sqlalchemy.pool import NullPool

    # MLflow's stores would keep a connection to this path for the whole process.
    engine = create_engine(f"{SQLITE}{path}", poolclass=NullPool)
    # Nobody needs the steps on disk, only the result.
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
    _initialize_tables(engine)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _initial_tables() -> set[str]:
    from mlflow.store.tracking.dbmodels.initial_models import Base

    return set(Base.metadata.tables)


def _is_migrated(connection: sqlite3.Connection) -> bool:
    from mlflow.store.db.utils import _get_latest_schema_revision

    revisions = connection.execute(f"SELECT version_num FROM {_REVISION_TABLE}").fetchall()
    return revisions == [(_get_latest_schema_revision(),)]


def _has_rows(connection: sqlite3.Connection, table: str) -> bool:
    return connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() is not None


def _remove_companions(database: Path) -> None:
    for suffix in _COMPANIONS:
        with suppress(FileNotFoundError):
            os.unlink(f"{database}{suffix}")
