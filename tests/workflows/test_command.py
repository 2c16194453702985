"""What `pyflyte` prints when it ends."""

import gc
import sys
import tempfile

import pytest

from tasks.command import quiet_checkpoint_finalizers


def test_checkpoint_without_space_leaves_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    from flytekit.core.checkpointer import SyncCheckpoint

    def fail() -> None:
        raise OSError(28, "No space left on device")

    traces: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", traces.append)
    monkeypatch.setattr(tempfile, "TemporaryDirectory", fail)
    monkeypatch.setattr(SyncCheckpoint, "__del__", SyncCheckpoint.__del__)
    quiet_checkpoint_finalizers()
    with pytest.raises(OSError, match="No space"):
        SyncCheckpoint("anywhere")
    gc.collect()
    assert not traces
