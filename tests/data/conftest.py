"""Sources that several tests of the data package read."""

from pathlib import Path

import pytest

from tests.support.hagrid_source import write_hagrid


@pytest.fixture
def split_source(tmp_path: Path) -> Path:
    """A source with HaGRID's split, in which the person u0 is wrongly in both parts."""
    write_hagrid(tmp_path, {f"u{i}": 3 for i in range(6)}, "train")
    write_hagrid(tmp_path, {f"v{i}": 2 for i in range(3)}, "val")
    return write_hagrid(tmp_path, {"u0": 2, "w0": 2, "w1": 2, "w2": 2}, "test")
