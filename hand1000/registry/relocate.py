"""Relocation of an embedded MLflow: its addresses follow the folder when that is moved or copied.

MLflow stores absolute addresses of files in its database. A moved folder would therefore lose its files, and a copy
would read, write and remove those of the original. Both are corrected before the database is used.
"""

import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from hand1000.core.errors import Hand1000Error
from hand1000.registry.database import DATABASE, translate_database_errors

logger = logging.getLogger(__name__)

FILES = "mlartifacts"
"""Folder of the files of an embedded MLflow, beside its database."""

_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def relocate_files(database: Path) -> None:
    """Make the addresses in a database of MLflow point to the folder `mlartifacts` beside it.

    Addresses below another folder `mlartifacts` stay only if their files are there and not here, and no other database
    is beside that folder, with a warning. The caller holds the database's lock.

    Raises:
        Hand1000Error: The database cannot be read or written.
    """
    files = database.parent / FILES
    # The connection's own block commits all updates or none.
    with (
        translate_database_errors(database),
        closing(sqlite3.connect(database, timeout=60)) as connection,
        connection,
    ):
        for base in _other_bases(connection, files.as_uri()):
            if not _is_apart(connection, base, database):
                _replace_base(connection, base, files.as_uri())
            else:
                logger.warning("%s: its files are in %s, not beside it", database, _local_path(base))


def check_location(database: Path) -> None:
    """Refuse a database that cannot be written and has moved since its addresses were stored.

    Raises:
        Hand1000Error: Its addresses need a correction.
    """
    files = database.parent / FILES
    with translate_database_errors(database), closing(sqlite3.connect(database, timeout=60)) as connection:
        bases = _other_bases(connection, files.as_uri())
        moved = [base for base in bases if not _is_apart(connection, base, database)]
    if moved:
        raise Hand1000Error(
            f"{database}: made in {_local_path(moved[0]).parent} and moved; make {database.parent} writable for one "
            "command, which corrects the addresses, or copy it"
        )


def _other_bases(connection: sqlite3.Connection, own: str) -> list[str]:
    """Return the addresses of the folders `mlartifacts` of experiments, except `own`."""
    locations = connection.execute("SELECT artifact_location FROM experiments").fetchall()
    bases = {location.rpartition("/")[0] for (location,) in locations if location}
    return sorted(base for base in bases if base != own and base.endswith(f"/{FILES}") and base.startswith("file:"))


def _is_apart(connection: sqlite3.Connection, base: str, database: Path) -> bool:
    """Whether the files below `base` are those of this database, which has been moved without them.

    A database beside `base` is the original of this one, which may have added files since the copy was made: files of
    the same run there do not tell whose they are.
    """
    there = _local_path(base)
    if not there.exists() or any((there.parent / name).exists() for name in (DATABASE, database.name)):
        return False
    addresses = [
        address
        for table, column in _ADDRESSES[1:3]
        for (address,) in connection.execute(
            f"SELECT {column} FROM {table} WHERE substr({column}, 1, ?) = ?", (len(base) + 1, f"{base}/")
        )
    ]
    return not any((database.parent / FILES / unquote(address[len(base) + 1 :])).exists() for address in addresses)


def _replace_base(connection: sqlite3.Connection, base: str, own: str) -> None:
    for table, column in _ADDRESSES:
        connection.execute(
            f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
            (own, len(base) + 1, len(base) + 1, f"{base}/"),
        )
    # MLflow keeps the addresses of runs by their ids for the whole process, also across databases.
    from mlflow.tracking._tracking_service import utils

    utils._artifact_repos_cache.clear()


def _local_path(address: str) -> Path:
    return Path(unquote(urlsplit(address).path))
