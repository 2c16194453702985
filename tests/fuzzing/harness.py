"""Runner of seeded bad inputs: each must be accepted or refused in one line, within bounded time and memory.

A `Door` is a place where something from outside enters the program. Its inputs run one after another in a forked child,
which the parent kills when an input takes too long or too much memory; the next child goes on with the next input.
"""

import contextlib
import importlib
import io
import os
import pickle
import pkgutil
import random
import select
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hand1000.core.errors import Hand1000Error
from tests.support.forked_torch import renew_thread_pool

MAX_SECONDS = 60.0
"""Seconds after which an input counts as a hang; the first may import libraries on a busy machine."""
MAX_GROWTH = 1 << 30
"""Bytes of memory that an input may take above what the child had at its start."""
MAX_MESSAGE = 2000
"""Characters of a refusal; a longer one is a fault, since nobody reads it."""

_POLL_SECONDS = 0.02
_SIZE_BYTES = 4
_PAGE = os.sysconf("SC_PAGE_SIZE")


class RefusedError(Exception):
    """A refusal other than a `Hand1000Error`, such as an HTTP status or a usage line; its text is the message."""


@dataclass(frozen=True)
class Door:
    """A place where something from outside enters.

    Attributes:
        name: What enters, as a row of the table.
        make: Returns an input, by its random generator alone.
        call: Gives the input to the program; the folder is empty and new for each input. It returns if the input is
            accepted, and raises `Hand1000Error` or `RefusedError` if it is refused; anything else is a fault.
        weight: Share of the inputs beside doors of weight 1; less for a slow door.
    """

    name: str
    make: Callable[[random.Random], Any]
    call: Callable[[Any, Path], object]
    weight: float = 1.0


@dataclass
class DoorResult:
    """What became of the inputs of one door.

    Attributes:
        name: The door's name.
        accepted: Number of inputs that were accepted.
        refused: Number of inputs that were refused in one line.
        faults: The seed of each faulty input, with what happened.
        seconds: Of the slowest input.
        growth: Most bytes of memory above the start.
    """

    name: str
    accepted: int = 0
    refused: int = 0
    faults: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0
    growth: int = 0

    @property
    def tried(self) -> int:
        """Number of inputs."""
        return self.accepted + self.refused + len(self.faults)


def find_doors() -> list[Door]:
    """Return `DOORS` of every module in `tests/fuzzing/doors`, in the order of their names."""
    modules = sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).with_name("doors"))]))
    return [door for name in modules for door in importlib.import_module(f"tests.fuzzing.doors.{name}").DOORS]


def make_input(door: Door, seed: int) -> Any:
    """Return the input of a seed."""
    return door.make(random.Random(f"{door.name}/{seed}"))


def run_door(door: Door, seeds: Iterable[int]) -> DoorResult:
    """Give the inputs of all seeds to a door."""
    result, pending = DoorResult(door.name), list(seeds)
    while pending:
        done = 0
        for seed, outcome in _run_child(door, pending):
            done += 1
            _count(result, seed, outcome)
        pending = pending[done:]
    return result


def call_door(door: Door, seed: int) -> tuple[str, str]:
    """Give one input to a door in this process; return "accepted", "refused" or "fault", and the message."""
    value = make_input(door, seed)
    with tempfile.TemporaryDirectory() as folder:
        try:
            door.call(value, Path(folder))
        except (Hand1000Error, RefusedError) as error:
            if problem := _judge_message(str(error)):
                return "fault", f"{problem}: {str(error)[:200]!r}"
            return "refused", str(error)
        except BaseException as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            return "fault", f"{type(error).__name__}: {str(error)[:200]} ({at.filename}:{at.lineno})"
        return "accepted", ""


def _judge_message(text: str) -> str:
    if not text.strip() or len(text) > MAX_MESSAGE:
        return f"a message of {len(text)} characters"
    return "a message of several lines" if "\n" in text else ""


@dataclass
class _Outcome:
    kind: str
    message: str
    seconds: float = 0.0
    growth: int = 0


def _count(result: DoorResult, seed: int, outcome: _Outcome) -> None:
    result.seconds = max(result.seconds, outcome.seconds)
    result.growth = max(result.growth, outcome.growth)
    if outcome.kind == "fault":
        result.faults[seed] = outcome.message
    elif outcome.kind == "refused":
        result.refused += 1
    else:
        result.accepted += 1


def _run_child(door: Door, seeds: list[int]) -> Iterator[tuple[int, _Outcome]]:
    """Yield the outcome of each seed, up to and including the first that the child does not survive."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        renew_thread_pool()
        _serve_seeds(door, seeds, writing)
    os.close(writing)
    start_rss = _rss(child)
    try:
        with open(reading, "rb", buffering=0) as stream:
            for seed in seeds:
                outcome = _await_outcome(stream, child, start_rss)
                yield seed, outcome
                if outcome.kind == "fault" and outcome.message.startswith("killed"):
                    return
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _await_outcome(stream: io.RawIOBase, child: int, start_rss: int) -> _Outcome:
    """Return what the child says, or why it was killed or ended."""
    start = time.monotonic()
    while not select.select([stream], [], [], _POLL_SECONDS)[0]:
        growth, seconds = _rss(child) - start_rss, time.monotonic() - start
        if growth > MAX_GROWTH:
            return _Outcome("fault", f"killed: {growth >> 20} MiB above the start", seconds, growth)
        if seconds > MAX_SECONDS:
            return _Outcome("fault", f"killed: after {seconds:.0f} s", seconds, growth)
    size = stream.read(_SIZE_BYTES)
    if len(size) < _SIZE_BYTES:
        return _Outcome("fault", "killed: the process ended", time.monotonic() - start)
    return pickle.loads(stream.read(int.from_bytes(size)))


def _serve_seeds(door: Door, seeds: list[int], writing: int) -> None:
    """Run in the child: call the door with each seed and write the outcomes; never return."""
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silence, stream)
    code = 1
    try:
        with open(writing, "wb", buffering=0) as pipe:
            start_rss = _rss(os.getpid())
            for seed in seeds:
                with contextlib.suppress(OSError):
                    Path("/proc/self/clear_refs").write_text("5")  # Resets VmHWM.
                start = time.monotonic()
                kind, message = call_door(door, seed)
                outcome = _Outcome(kind, message, time.monotonic() - start, _peak_rss() - start_rss)
                if outcome.growth > MAX_GROWTH and kind != "fault":
                    outcome.kind, outcome.message = "fault", f"{outcome.growth >> 20} MiB above the start"
                data = pickle.dumps(outcome)
                pipe.write(len(data).to_bytes(_SIZE_BYTES) + data)
        code = 0
    finally:
        os._exit(code)


def _rss(process: int) -> int:
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * _PAGE
    return 0


def _peak_rss() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return 0
