"""A slice of the bad inputs of every door, and the runner itself."""

import os
import re
import signal
import time
from pathlib import Path

import pytest

from hand1000.core.errors import Hand1000Error
from tests.fuzzing.harness import Door, RefusedError, find_doors, run_door

INPUTS = 12


@pytest.mark.parametrize("door", find_doors(), ids=lambda door: door.name.replace(" ", "-"))
def test_bad_inputs_are_refused_in_one_line(door: Door) -> None:
    result = run_door(door, range(max(3, round(INPUTS * door.weight))))
    assert not result.faults and result.refused


def _misbehave(kind: str, folder: Path) -> None:
    """Do what a door may do with an input."""
    assert not list(folder.iterdir())
    (folder / "file").touch()
    if kind == "refuse":
        raise Hand1000Error("x: wrong; write y")
    if kind == "answer":
        raise RefusedError("400")
    if kind == "ramble":
        raise RefusedError("two\nlines")
    if kind == "dump":
        raise Hand1000Error("long" * 1000)
    if kind == "crash":
        raise KeyError("x")
    if kind == "exit":
        raise SystemExit(1)
    if kind == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "hang":
        time.sleep(60)
    if kind in ("swell", "swell a moment"):
        held = b"1" * (128 << 20)
        time.sleep(60 if kind == "swell" else 0)
        del held


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("accept", ""),
        ("refuse", ""),
        ("answer", ""),
        ("ramble", "a message of several lines"),
        ("dump", "a message of 4000 characters"),
        ("crash", "KeyError: 'x' .*test_doors.py"),
        ("exit", "SystemExit: 1"),
        ("die", "killed: the process ended"),
        ("hang", "killed: after"),
        ("swell", "killed: 1.. MiB above the start"),
        ("swell a moment", "(killed: )?1.. MiB above the start"),
    ],
)
def test_the_runner_separates_faults_from_refusals(kind: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzzing.harness.MAX_SECONDS", 0.5 if kind == "hang" else 30.0)
    monkeypatch.setattr("tests.fuzzing.harness.MAX_GROWTH", 100 << 20)
    result = run_door(Door("runner", lambda _: kind, _misbehave), range(2))
    counts = {"accept": (2, 0), "refuse": (0, 2), "answer": (0, 2)}
    assert (result.accepted, result.refused) == counts.get(kind, (0, 0)) and result.tried == 2
    assert all(re.match(message, text) for text in result.faults.values())
