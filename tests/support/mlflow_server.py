"""A real MLflow server on the loopback."""

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
    """A port that nothing listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@contextlib.contextmanager
def mlflow_server(folder: Path, artifacts: str = "") -> Iterator[str]:
    """Run `mlflow server` over a sqlite file in `folder` until the block ends; gives its URI.

    Its artifacts lie in `folder` too, or at the `s3://` address `artifacts`.
    """
    uri = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", uri.rpartition(":")[2]]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'server.db'}"]
    command += ["--artifacts-destination", artifacts or str(folder / "server-artifacts")]
    # Its workers for jobs of other parts of MLflow take most of its start.
    with serving(command, f"{uri}/health", folder / "server.log", {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}):
        yield uri


@contextlib.contextmanager
def serving(command: list[str], health: str, log: Path, environment: Mapping[str, str] | None = None) -> Iterator[None]:
    """Run `command` until the block ends, entering it when `health` answers 200."""
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
            # The whole group: the servers fork workers that outlive them.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 15)
            process.wait(timeout=20)
