"""Temporary folders of processes that end or are killed."""

import contextlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hand1000.storage.artifacts import ArtifactStore
from hand1000.storage.backend import LocalBackend

CHILD = """
import sys, time
from hand1000.storage.artifacts import open_store
with open_store(sys.argv[1]).workspace() as path:
    (path / "file").write_text("x")
    print(path.parent, flush=True)
    time.sleep(float(sys.argv[2]))
"""


def test_a_process_leaves_no_temporary_files(s3_root, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    subprocess.run([sys.executable, "-c", CHILD, s3_root, "0"], check=True, stdout=subprocess.DEVNULL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("remove", ["workspace", "remove_abandoned"])
def test_only_the_scratch_of_a_killed_process_is_removed(tmp_path, remove):
    root = str(tmp_path / "root")
    children = [
        subprocess.Popen([sys.executable, "-c", CHILD, root, "60"], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    living, dead = (Path(child.stdout.readline().strip()) for child in children)
    assert living.is_dir() and dead.is_dir()
    children[1].send_signal(signal.SIGKILL)
    children[1].wait()
    with getattr(ArtifactStore(LocalBackend(root)), remove)() or contextlib.nullcontext():
        assert living.is_dir() and not dead.exists()
    children[0].kill()
    children[0].wait()
