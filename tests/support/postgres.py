"""A temporary PostgreSQL cluster on this machine."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support.mlflow_server import free_port

USER = "mlflow"


@contextlib.contextmanager
def postgres_server() -> Iterator[str]:
    """Run a new cluster until the block ends; provide the URI of its only database.

    PostgreSQL refuses to run as root, which therefore hands it to `nobody`.
    """
    programs = find_programs()
    runner = ["runuser", "-u", "nobody", "--"] if os.geteuid() == 0 else []
    port = free_port()
    # In the system's temporary folder, because root's own are closed to others.
    folder = Path(tempfile.mkdtemp(prefix="hand1000-postgres-", dir="/tmp"))
    data = folder / "data"
    try:
        if runner:
            shutil.chown(folder, "nobody")
        _run([*runner, programs / "initdb", "--auth=trust", f"--username={USER}", "--no-sync", "-D", data], folder)
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} -c fsync=off"
        control = [*runner, programs / "pg_ctl", "-D", data]
        _run([*control, "-w", "-l", folder / "log", "-o", options, "start"], folder)
        try:
            # SQLAlchemy 2.1 would import psycopg 3 otherwise.
            yield f"postgresql+psycopg2://{USER}@127.0.0.1:{port}/postgres"
        finally:
            _run([*control, "-m", "immediate", "stop"], folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def find_programs() -> Path:
    """Return the folder of the newest PostgreSQL's programs, which Debian does not add to the path."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    if folders:
        return folders[-1]
    initdb = shutil.which("initdb")
    assert initdb, "PostgreSQL is not installed; run `sh tooling/test-packages.sh`"
    return Path(initdb).parent


def _run(command: list[object], folder: Path) -> None:
    # To a file: the server would inherit a pipe, whose end would never come.
    with open(folder / "output", "ab") as output:
        done = subprocess.run([str(part) for part in command], stdout=output, stderr=output, cwd="/", timeout=120)
    assert done.returncode == 0, (folder / "output").read_text()[-2000:]
