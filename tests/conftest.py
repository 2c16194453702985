"""Fixtures of several test files: a real S3 server and a browser on this machine, and one short run of the workflow."""

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from playwright.sync_api import Browser, sync_playwright

from tests.support.s3_server import BUCKET
from tests.support.s3_server import s3_server as run_s3_server
from tests.support.short_demo import run


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of a SeaweedFS server for the whole session; the AWS_* variables name it."""
    with run_s3_server(tmp_path_factory.mktemp("seaweedfs")) as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield environment["AWS_ENDPOINT_URL_S3"]


@pytest.fixture
def s3_root(s3_server: str) -> str:
    """A new prefix of the server's only bucket; SeaweedFS reserves 7 of its 20 volumes for each bucket."""
    return f"s3://{BUCKET}/{uuid.uuid4().hex[:12]}/root"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium; for one file only, because Playwright keeps an event loop running that others cannot share."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The folder of a finished short run, shared by all test processes, to which tests compare their runs."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "finished_run"
    with FileLock(f"{folder}.lock"):
        if not (folder / "stdout").exists():
            folder.mkdir(exist_ok=True)
            done = run(folder)
            assert done.returncode == 0, done.stderr[-3000:]
            (folder / "stdout").write_text(done.stdout)
    return folder


@pytest.fixture
def tiny_disk(tmp_path: Path):
    """A filesystem of one mebibyte."""
    path = tmp_path / "disk"
    path.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", path]).returncode:
        pytest.skip("only root may mount a small filesystem")
    yield path
    subprocess.run(["umount", "-l", path], check=True)
