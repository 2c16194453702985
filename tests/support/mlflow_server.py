"""A real MLflow server on this machine."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


ADMIN, ADMIN_PASSWORD = "admin", "the-admins-password"


@contextlib.contextmanager
def mlflow_server(
    folder: Path,
    artifacts: str = "",
    *,
    database: str = "",
    default_permission: str = "",
    environment: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Run `mlflow server` until the block ends; provide its URI.

    Its database is a sqlite file in `folder` unless `database` is a URI. Its artifacts are in `folder`, too, or at the
    `s3://` address `artifacts`. With a default permission the server has accounts, at first the administrator's alone.
    `environment` has further variables of the server.
    """
    uri = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", uri.rpartition(":")[2]]
    command += ["--workers", "1", "--backend-store-uri", database or f"sqlite:///{folder / 'server.db'}"]
    command += ["--artifacts-destination", artifacts or str(folder / "server-artifacts")]
    # Workers for jobs of other parts of MLflow would take most of the start.
    variables = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **(environment or {})}
    if default_permission:
        (folder / "auth.ini").write_text(
            f"[mlflow]\ndefault_permission = {default_permission}\ndatabase_uri = sqlite:///{folder / 'auth.db'}\n"
            # Without it each request takes the tenth of a second in which a password is checked.
            f"auth_cache_ttl_seconds = 60\nadmin_username = {ADMIN}\nadmin_password = {ADMIN_PASSWORD}\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        )
        command += ["--app-name", "basic-auth"]
        variables |= {"MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"), "MLFLOW_FLASK_SERVER_SECRET_KEY": "key"}
    with serving(command, f"{uri}/health", folder / "server.log", variables):
        yield uri


@contextlib.contextmanager
def serving(command: list[str], health: str, log: Path, environment: Mapping[str, str] | None = None) -> Iterator[None]:
    """Run `command` until the block ends; the block begins once `health` answers 200."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with open(log, "w") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            env={**os.environ, "PATH": path, **(environment or {})},
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + 150
            while True:
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-2000:]
                with contextlib.suppress(OSError), urllib.request.urlopen(health, timeout=2) as answer:
                    if answer.status == 200:
                        break
                time.sleep(0.1)
            yield
        finally:
            # The whole process group, because the servers fork workers that outlive them.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 15)
            process.wait(timeout=20)
