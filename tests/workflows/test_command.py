"""What `pyflyte` prints when it ends."""

import gc
import signal
import sys
import tempfile

import pytest

from tasks.command import quiet_checkpoint_finalizers, shorten_flyte_errors


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


def test_a_signal_to_several_processes_ends_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """As Flyte's Elastic task does: it logs the signal with its traceback, and raises an error of its own."""
    from flytekit.clis.sdk_in_container import utils
    from flytekit.extend import IgnoreOutputs
    from flytekit.loggers import logger
    from torch.distributed.elastic.multiprocessing.api import SignalException

    monkeypatch.setattr(utils, "pretty_print_exception", utils.pretty_print_exception)
    monkeypatch.setattr(logger, "filters", [])
    shorten_flyte_errors()
    try:
        try:
            raise SignalException("stopped", signal.SIGTERM)
        except SignalException as error:
            logger.exception("the launcher ends")
            raise IgnoreOutputs from error
    except IgnoreOutputs as error:
        with pytest.raises(SystemExit, match="143"):
            utils.pretty_print_exception(error)
    assert capsys.readouterr().err == "hand1000: stopped by SIGTERM; the same command continues from there\n"
