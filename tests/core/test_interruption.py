"""SIGTERM and SIGINT in real processes: when they stop a computation, with which status, and in which process."""

import os
import signal
import subprocess
import sys
import time

import pytest

from hand1000.core import interruption
from hand1000.core.interruption import Interrupted, deferred_interruption, handle_signals, raise_if_interrupted

PROGRAM = """
import os, signal, sys, time
from hand1000.core.interruption import *
from hand1000.core import interruption
interruption._REPEAT_SECONDS = 0.1
install_handlers()
def ready(): print("ready", flush=True)
try:
    {body}
except Interrupted as error:
    print(error, flush=True)
    sys.exit(error.exit_status)
"""
STEPS = """with deferred_interruption():
        ready()
        for step in range(1000):
            time.sleep(0.01)
            raise_if_interrupted(lambda: print("saved", flush=True))"""
NEVER_ASKS = """with deferred_interruption():
        ready()
        for _ in range(100): time.sleep(0.1)"""
OTHER_ERROR = """with deferred_interruption():
        ready()
        while not is_interrupted(): time.sleep(0.01)
        raise ValueError("a child was interrupted, too")"""
AT_ONCE = "ready(); time.sleep(30)"
RETRY = """with deferred_interruption():
        ready()
        interruption.sleep(30)"""
FORK = """child = os.fork()
    if not child:
        ready(); time.sleep(30)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"""


def run(body: str, *numbers: int) -> tuple[int, list[str], str]:
    """Send the signals to a process that is ready, and return its status, lines and standard error."""
    program = PROGRAM.format(body=body)
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for number in numbers:
        process.send_signal(number)
        time.sleep(0.3)
    out, err = process.communicate(timeout=20)
    return process.returncode, out.splitlines(), err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_computation_saves_and_ends_with_a_status(number) -> None:
    status, lines, error = run(STEPS, number)
    assert status == 128 + number and lines[0] == "saved" and number.name in lines[1]
    assert error == f"hand1000: {number.name}: stopping after this step; another signal ends it at once\n"


def test_outside_of_a_computation_a_signal_stops_at_once() -> None:
    for body in (AT_ONCE, RETRY, OTHER_ERROR):
        status, lines, _ = run(body, signal.SIGTERM)
        assert status == 143 and len(lines) == 1 and "the same command continues" in lines[0]


def test_another_signal_ends_the_process_at_once() -> None:
    started = time.monotonic()
    assert run(NEVER_ASKS, signal.SIGTERM, signal.SIGINT)[:2] == (130, [])
    assert time.monotonic() - started < 8


def test_a_forked_child_keeps_the_usual_signals() -> None:
    program = PROGRAM.format(body=FORK)
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    children = f"/proc/{process.pid}/task/{process.pid}/children"
    with open(children) as file:
        child = int(file.read())
    os.kill(child, signal.SIGINT)  # A terminal's signal, after which the parent decides.
    time.sleep(0.2)
    os.kill(child, signal.SIGTERM)
    assert process.communicate(timeout=20)[0] == f"{-signal.SIGTERM}\n"


def test_handlers_are_restored_and_ignored_signals_stay() -> None:
    before = signal.getsignal(signal.SIGTERM)
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with handle_signals():
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) != before
            with pytest.raises(Interrupted) as caught, deferred_interruption():
                os.kill(os.getpid(), signal.SIGTERM)
                assert interruption.is_interrupted()
        assert caught.value.exit_status == 143
    finally:
        signal.signal(signal.SIGINT, previous)
    assert signal.getsignal(signal.SIGTERM) == before and not interruption.is_interrupted()
    raise_if_interrupted()
