"""Runs in children of a warm process, which has imported everything and started no thread."""

import atexit
import contextlib
import importlib
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.interposer import COUNT, Injection, arm, disarm
from tests.support.forked_torch import renew_thread_pool

DEADLINE_SECONDS = 300.0
_POLL_SECONDS = 0.005


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Attributes:
        status: Exit status; negative for a signal.
        seconds: Its duration.
        log: What it wrote to stdout and stderr.
        operations: Number of operations on files below the watched folders; 0 if it was killed.
        hung: Whether it had to be killed at the deadline.
    """

    status: int
    seconds: float
    log: str
    operations: int
    hung: bool = False

    @property
    def is_readable(self) -> bool:
        """Whether it ended by a signal, or without a traceback."""
        return not self.hung and (self.status < 0 or "Traceback (most recent call last)" not in self.log)


def import_all(modules: Sequence[str]) -> None:
    """Import modules that a run has imported, and check that this started no thread."""
    for name in modules:
        # A module that only another one can import, or that a run has made by itself.
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    # That of pyarrow's allocator survives a fork: jemalloc starts it again in the child.
    threads = [name for name in names if name != "jemalloc_bg_thd"]
    if len(threads) != 1:
        raise SystemExit(f"tests.faults: imports started threads, which a fork would lose: {', '.join(threads)}")


class Child:
    """A forked run."""

    def __init__(
        self,
        function: Callable[[], None],
        folder: Path,
        *,
        watched: Sequence[Path] = (),
        injection: Injection | None = None,
        environment: Mapping[str, str] | None = None,
        memory: int = 0,
    ) -> None:
        """Start `function` in a child.

        Args:
            function: What to run.
            folder: Existing folder for the log.
            watched: Folders below which operations are counted.
            injection: Fault to inject.
            environment: Variables of the child; those that are "" are removed.
            memory: Bytes of address space that it may add to the parent's; 0 does not limit it.
        """
        stamp = time.monotonic_ns()
        self.log, self.count = folder / f"log-{stamp}", folder / f"operations-{stamp}"
        self.log.touch()  # A child that is killed at once has no log of its own.
        self.started = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.process = os.fork()
        if self.process == 0:
            status = 70
            try:
                status = self._run(function, watched, injection, environment or {}, memory)
            finally:
                os._exit(status)

    def _run(
        self,
        function: Callable[[], None],
        watched: Sequence[Path],
        injection: Injection | None,
        environment: Mapping[str, str],
        memory: int,
    ) -> int:
        os.setsid()
        log = os.open(self.log, os.O_WRONLY | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(log, stream)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for name, value in environment.items():
            if value:
                os.environ[name] = value
            else:
                os.environ.pop(name, None)
        import tempfile

        tempfile.tempdir = None  # The parent may have looked it up already.
        renew_thread_pool()
        if memory:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + memory
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        arm(watched, injection or Injection(COUNT))
        try:
            function()
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:  # noqa: BLE001 (as the interpreter does at its end)
            traceback.print_exc()
            status = 1
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()
        operations = disarm()
        with contextlib.suppress(OSError):
            self.count.write_text(str(operations))
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        return status

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process, number)

    def wait(self, *, kill_after: float = 0.0, deadline: float = DEADLINE_SECONDS) -> Ending:
        """Wait for its end; `kill_after` seconds kill it before."""
        hung, killed = False, False
        while True:
            finished, status = os.waitpid(self.process, os.WNOHANG)
            age = time.monotonic() - self.started
            if finished:
                break
            if kill_after and age > kill_after and not killed:
                self.kill()
                killed = True
            if age > deadline and not hung:
                hung = True
                self.kill()
            time.sleep(_POLL_SECONDS)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process, signal.SIGKILL)  # What it has started dies with it.
        code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        # A child that is killed while it writes the count leaves an empty file.
        operations = int((self.count.read_text() if self.count.exists() else "") or 0)
        return Ending(code, age, self.log.read_text(errors="replace"), operations, hung)
