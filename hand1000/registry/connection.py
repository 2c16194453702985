"""The connection to MLflow: a server, or one sqlite file in a folder with the files beside it."""

import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from shlex import join, quote
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

from hand1000.core.errors import Hand1000Error, TransientError, translate_write_errors
from hand1000.core.retry import call_with_retry
from hand1000.registry.database import (
    DATABASE,
    SQLITE,
    has_database,
    is_writable,
    prepare_database,
    silence_database_log,
    translate_database_errors,
)
from hand1000.registry.mlflow_errors import foreign_errors, readable_error
from hand1000.registry.relocate import FILES, check_location, relocate_files

if TYPE_CHECKING:
    from mlflow import MlflowClient

SERVER_VARIABLE = "MLFLOW_TRACKING_URI"
DEFAULT_FOLDER = Path("artifacts")
"""Folder of the embedded MLflow where neither an option nor the environment names one."""


@dataclass(frozen=True)
class Patience:
    """How long a connection waits.

    Attributes:
        probe_delays: Seconds between the attempts to reach a server.
        probe_timeout: Seconds for one of them.
        lock_timeout: Seconds for the lock of an embedded MLflow, which a registration holds for its upload; -1 is
            without end.
    """

    probe_delays: tuple[float, ...] = (1.0, 1.0)
    probe_timeout: float = 10.0
    lock_timeout: float = -1.0


PATIENT = Patience()
IMPATIENT = Patience(probe_delays=(), probe_timeout=3.0, lock_timeout=5.0)
"""For work that goes on without MLflow."""


@dataclass(frozen=True)
class Tracking:
    """A connection to an MLflow that answers.

    Attributes:
        uri: Tracking and registry URI.
        artifact_root: Folder of the files of a new experiment; None leaves the choice to the server.
        lock_file: Lock of the processes that share a sqlite file; None for a server.
        lock_timeout: Seconds to wait for that lock; -1 is without end.
    """

    uri: str
    artifact_root: str | None = None
    lock_file: Path | None = None
    lock_timeout: float = -1.0

    @cached_property
    def client(self) -> "MlflowClient":
        """The client, which has no active run that threads could share."""
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    @property
    def scratch_parent(self) -> Path | None:
        """Folder for temporary files: beside an embedded MLflow; None, the system's, for a server."""
        return self.lock_file and self.lock_file.parent / "scratch"

    @property
    def database(self) -> Path | None:
        """File of an embedded MLflow; None for a server."""
        return Path(self.uri.removeprefix(SQLITE)) if self.lock_file else None

    @property
    def redacted_uri(self) -> str:
        """The URI without user and password, for messages."""
        return redact_userinfo(self.uri)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Exclude the other processes of an embedded MLflow; a server has no such lock. Not reentrant.

        Raises:
            TransientError: Another process has held it for `lock_timeout`.
            Hand1000Error: The folder of an embedded MLflow is not writable.
        """
        from filelock import FileLock, Timeout

        if self.lock_file is None:
            yield
            return
        lock = FileLock(self.lock_file, timeout=self.lock_timeout)
        try:
            with translate_write_errors(self.lock_file.parent):
                lock.acquire()
        except Timeout as error:
            raise TransientError(f"{self.lock_file}: another process writes to this MLflow; try again") from error
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def readable_errors(self) -> Iterator[None]:
        """Turn MLflow's exceptions into a `Hand1000Error` of one line that contains no password.

        Raises:
            TransientError: The server does not answer, or another program has locked the database.
        """
        try:
            yield
        except foreign_errors() as error:
            raise readable_error(error, self.uri, self.redacted_uri) from error


def read_pages(search: Callable[..., Any], *arguments: Any, **options: Any) -> Iterator[Any]:
    """Yield the results of all pages of one of MLflow's searches."""
    token = None
    while True:
        page = search(*arguments, **options, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def redact_userinfo(uri: str) -> str:
    """Return `scheme://user:password@host/...` as `scheme://host/...`, and any other text unchanged."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else uri


def connect(
    folder: Path = DEFAULT_FOLDER,
    *,
    registry: str | Path | None = None,
    create: bool = True,
    patience: Patience = PATIENT,
) -> Tracking:
    """Connect to the MLflow at `registry`, else to that of `MLFLOW_TRACKING_URI`, else to the one embedded in `folder`.

    The addresses in an embedded MLflow that was moved or copied are corrected; one in a folder that is not writable can
    be read where it was made. A user and password in a server's URI
    move to MLflow's own variables, so that no message can repeat them.

    Args:
        folder: Folder of the embedded MLflow's `mlflow.db` and `mlartifacts/`.
        registry: A folder with `mlflow.db`, that file, or the URI of a server.
        create: Whether to create an embedded MLflow that does not exist.
        patience: How long to wait.

    Raises:
        TransientError: The server does not answer in time, or another program has locked the database.
        Hand1000Error: The folder is not writable, the database is damaged, or there is nothing to read.
    """
    address = _choose_address(folder, registry)
    if not _is_embedded(address):
        return _connect_server(address, patience)
    return _open_embedded(_find_database(address), create, patience)


def locate_embedded(folder: Path = DEFAULT_FOLDER) -> Tracking | None:
    """Return the embedded MLflow that `connect` would open, without opening it; None if it would ask a server."""
    address = _choose_address(folder)
    return _describe_embedded(_find_database(address), PATIENT) if _is_embedded(address) else None


def _choose_address(folder: Path, registry: str | Path | None = None) -> str:
    return str(registry or os.environ.get(SERVER_VARIABLE, "").strip() or folder)


def _describe_embedded(database: Path, patience: Patience) -> Tracking:
    files, lock_file = (database.parent / FILES).as_uri(), database.with_suffix(".lock")
    return Tracking(f"{SQLITE}{database}", files, lock_file, patience.lock_timeout)


def _open_embedded(database: Path, create: bool, patience: Patience) -> Tracking:
    silence_database_log()
    tracking = _describe_embedded(database, patience)
    if create:
        with translate_write_errors(database.parent):
            database.parent.mkdir(parents=True, exist_ok=True)
        with tracking.lock():
            prepare_database(database)
    elif not has_database(database):
        raise Hand1000Error(
            f"{database}: no MLflow here; name the folder of {DATABASE} or a server with --registry, "
            f"or set {SERVER_VARIABLE}"
        )
    if not is_writable(database):
        with translate_database_errors(database):
            tracking.client.search_experiments(max_results=1)
        check_location(database)
        return tracking
    # The first access adds what a new database lacks, which two processes must not do at the same time.
    with tracking.lock(), translate_write_errors(database.parent):
        with translate_database_errors(database):
            tracking.client.search_experiments(max_results=1)
        relocate_files(database)
    return tracking


def registry_option(tracking: Tracking) -> str:
    """Return the option that a command run in the present folder needs to find this MLflow, or "" if it needs none."""
    address = registry_address(tracking)
    return address and f"--registry {quote(address)}"


def shell_command(tracking: Tracking, *arguments: str) -> str:
    """Return the line that runs `hand1000` with these arguments on this MLflow, from the present folder."""
    return f"{join(['hand1000', *arguments])} {registry_option(tracking)}".rstrip()


def registry_address(tracking: Tracking) -> str:
    """Return this MLflow's address for `connect` in the present folder, or "" where `connect` finds it without one."""
    default = os.environ.get(SERVER_VARIABLE, "").strip() or str(DEFAULT_FOLDER)
    database = tracking.database
    if database is None:
        return "" if default.rstrip("/") == tracking.uri.rstrip("/") else tracking.redacted_uri
    if _is_embedded(default) and _find_database(default) == database:
        return ""
    folder = database.parent if database.name == DATABASE else database
    here = Path.cwd()
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)


def _is_embedded(address: str) -> bool:
    return address.startswith("sqlite:") or "://" not in address


def _find_database(address: str) -> Path:
    """Return the absolute path of the database at a folder, a file or a URI of sqlite."""
    path = Path(address.removeprefix(SQLITE)).expanduser().resolve()
    is_file = address.startswith(SQLITE) or path.suffix == ".db" or path.is_file()
    return path if is_file else path / DATABASE


def _connect_server(uri: str, patience: Patience) -> Tracking:
    parts = urlsplit(uri)
    if parts.scheme.partition("+")[0] in ("postgresql", "mysql", "mssql"):
        return Tracking(uri)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Hand1000Error(
            f"{redact_userinfo(uri)}: no address of an MLflow; give a folder, or http(s)://HOST of a server"
        )
    if parts.username:
        os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username)
        os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password or "")
        # MLflow's own code reads this variable again, so that it must not contain the password either.
        os.environ[SERVER_VARIABLE] = uri = redact_userinfo(uri)
    _probe(uri, patience)
    return Tracking(uri)


def _probe(uri: str, patience: Patience) -> None:
    """Wait for any answer of the server; MLflow's client itself retries for minutes where nothing listens."""

    def request_health() -> None:
        try:
            urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=patience.probe_timeout).close()
        except urllib.error.HTTPError:
            return  # An answer, too.

    try:
        call_with_retry(request_health, patience.probe_delays, (OSError, ValueError))
    except (OSError, ValueError) as error:
        raise TransientError(
            f"{uri}: no MLflow server answers ({getattr(error, 'reason', error)}); "
            f"start it, or correct --registry or {SERVER_VARIABLE}"
        ) from error
