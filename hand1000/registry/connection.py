"""Where MLflow is: the server that `MLFLOW_TRACKING_URI` names, or one sqlite file in a folder."""

import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from hand1000.core.errors import Hand1000Error, TransientError, one_line, translate_write_errors

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from mlflow import MlflowClient

SERVER_VARIABLE = "MLFLOW_TRACKING_URI"
_DATABASE = "mlflow.db"
_PROBES, _PROBE_SECONDS = 3, 10


@dataclass(frozen=True)
class Tracking:
    """An MLflow that answers.

    Args:
        uri: tracking and registry URI.
        artifact_root: where a new experiment keeps its files; None leaves it to the server.
        lock_file: what processes that share a sqlite file take turns with; None for a server.
    """

    uri: str
    artifact_root: str | None = None
    lock_file: Path | None = None

    @cached_property
    def client(self) -> "MlflowClient":
        """The client; it keeps no active run, so threads and processes do not see each other's."""
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    @property
    def public_uri(self) -> str:
        """The URI without user and password, fit to be printed."""
        return redact_userinfo(self.uri)

    def exclusive(self) -> "AbstractContextManager":
        """Hold off the other processes of an embedded MLflow; a server has no such lock. Not reentrant."""
        from filelock import FileLock

        return nullcontext() if self.lock_file is None else FileLock(self.lock_file)

    @contextmanager
    def readable_errors(self) -> Iterator[None]:
        """Turn what MLflow raises into a `Hand1000Error` of one line that holds no password."""
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            text = one_line(error).replace(self.uri, self.public_uri)
            raise Hand1000Error(f"MLflow at {self.public_uri}: {text}") from error


def redact_userinfo(uri: str) -> str:
    """`scheme://user:password@host/...` as `scheme://host/...`; any other text as it is."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else uri


def connect(folder: Path, *, create: bool = True) -> Tracking:
    """The MLflow to use: the one of `MLFLOW_TRACKING_URI` if that is set, else one embedded in `folder`.

    A user and password in the URI of a server move to MLflow's own variables, so that no message can repeat them.

    Args:
        folder: holds the embedded MLflow's `mlflow.db` and `mlartifacts/`.
        create: make the embedded MLflow where there is none; False to read only.

    Raises:
        Hand1000Error: the server does not answer, the folder may not be written, or there is nothing to read.
    """
    uri = os.environ.get(SERVER_VARIABLE, "").strip()
    if uri and not uri.startswith("sqlite:"):
        return _connect_server(uri)
    folder = folder.resolve()
    database = Path(uri.removeprefix("sqlite:///")).resolve() if uri else folder / _DATABASE
    if not create and not database.is_file():
        raise Hand1000Error(f"{database}: no MLflow here; set {SERVER_VARIABLE} or name the folder of {_DATABASE}")
    with translate_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        database.parent.mkdir(parents=True, exist_ok=True)
    tracking = Tracking(
        uri=f"sqlite:///{database}",
        artifact_root=(folder / "mlartifacts").as_uri(),
        lock_file=database.with_suffix(".lock"),
    )
    # Opening the store migrates a fresh file, and two migrations at once break each other.
    with translate_write_errors(folder), tracking.exclusive(), tracking.readable_errors():
        tracking.client.search_experiments(max_results=1)
    return tracking


def _connect_server(uri: str) -> Tracking:
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return Tracking(uri)
    if parts.username:
        os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username)
        os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password or "")
        # MLflow's own code reads the variable again in places; there too it must hold no password.
        os.environ[SERVER_VARIABLE] = uri = redact_userinfo(uri)
    _probe(uri)
    return Tracking(uri)


def _probe(uri: str) -> None:
    """Ask for an answer, any answer: MLflow's client itself retries for minutes where nothing listens."""
    for attempt in range(1, _PROBES + 1):
        try:
            urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=_PROBE_SECONDS).close()
            return
        except urllib.error.HTTPError:
            return
        except (OSError, ValueError) as error:
            if attempt == _PROBES:
                reason = getattr(error, "reason", error)
                raise TransientError(
                    f"{uri}: no MLflow server answers ({reason}); start it, or correct or unset {SERVER_VARIABLE}"
                ) from error
            time.sleep(1)
