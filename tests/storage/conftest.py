"""Fixtures for the tests of storage."""

import os
import subprocess
from pathlib import Path

import pytest

from hand1000.storage.artifacts import ArtifactStore, open_store


@pytest.fixture(params=["folder", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return request.getfixturevalue("s3_root") if request.param == "s3" else str(tmp_path / "root")


@pytest.fixture
def store(root: str) -> ArtifactStore:
    return open_store(root)


@pytest.fixture
def tiny_disk(tmp_path: Path):
    """A filesystem of one mebibyte."""
    path = tmp_path / "disk"
    path.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", path]).returncode:
        pytest.skip("only root may mount a small filesystem")
    yield path
    subprocess.run(["umount", "-l", path], check=True)
