"""Fixtures for the tests of storage."""

from pathlib import Path

import pytest

from hand1000.storage.artifacts import ArtifactStore, open_store


@pytest.fixture(params=["folder", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return request.getfixturevalue("s3_root") if request.param == "s3" else str(tmp_path / "root")


@pytest.fixture
def store(root: str) -> ArtifactStore:
    return open_store(root)
