"""Progress of a long computation and storage of its state: the protocols, and the progress bar on standard error."""

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, TextIO

from tqdm import tqdm

from hand1000.core.interruption import raise_if_interrupted, uninterrupted_step


class ProgressCallback(Protocol):
    """A function that is called after each step of a long computation."""

    def __call__(self, done: int, total: int, metrics: Mapping[str, float] | None = None, /) -> None:
        """Take note of the progress.

        Args:
            done: Number of finished steps.
            total: Number of all steps, 0 if it is unknown.
            metrics: What was measured at the last step.
        """


def noop_callback(done: int, total: int, metrics: Mapping[str, float] | None = None) -> None:
    """Ignore the progress."""


def report_step(
    on_progress: ProgressCallback,
    done: int,
    total: int,
    metrics: Mapping[str, float] | None = None,
    *,
    save: Callable[[], None],
) -> None:
    """Report a step of a computation that can save its state, and stop there if a signal has come.

    Args:
        on_progress: Callback that may itself raise `Interrupted`, as `ProgressBar` does where nothing can be saved.
        done: Number of finished steps.
        total: Number of all steps.
        metrics: What was measured at the step.
        save: Saves the state.

    Raises:
        Interrupted: A signal has come, and the state is saved.
    """
    with uninterrupted_step():
        on_progress(done, total, metrics)
    raise_if_interrupted(save)


class ProgressBar:
    """A `ProgressCallback` that shows a bar on a terminal, elsewhere a line at first, every 10 seconds and at the end.

    It writes to standard error. When the count starts over or has reached its total, the next call starts a new bar.
    Where a signal has asked the process to stop, a call raises `Interrupted`.
    """

    def __init__(
        self, title: str, *, unit: str = "it", on_display: Callable[[int, Mapping[str, float]], None] | None = None
    ) -> None:
        """Prepare a bar that appears with the first call.

        Args:
            title: Name of the computation.
            unit: What is counted; "B" is shown as kB, MB and GB.
            on_display: Called with `done` and the metrics whenever the bar is shown, so that a tracker keeps this pace.
        """
        self._title, self._unit, self._on_display = title, unit, on_display
        self._started = time.time()
        self._bar: tqdm | None = None

    def __call__(self, done: int, total: int, metrics: Mapping[str, float] | None = None) -> None:
        """Show the progress; see `ProgressCallback`."""
        if self._bar is not None and done < self._bar.n:
            self._bar.close()
            self._bar = None
        displayed = self._bar is None
        if self._bar is None:  # Not `or`: a bar without a total has no truth value.
            self._bar = self._open(done, total, metrics)
        bar = self._bar
        bar.set_postfix(metrics, refresh=False)
        displayed = bool(bar.update(done - bar.n)) or displayed
        if done == total:
            bar.close()
            self._bar = None
        if self._on_display and (displayed or done == total):
            self._on_display(done, metrics or {})
        raise_if_interrupted()

    def _open(self, done: int, total: int, metrics: Mapping[str, float] | None) -> tqdm:
        look: dict[str, Any] = {"file": sys.stderr, "mininterval": 0.1}
        if not sys.stderr.isatty():
            text = "{desc}: {n_fmt}/{total_fmt}{postfix}, {elapsed}"
            look = {"file": _Lines(sys.stderr), "mininterval": 10.0, "bar_format": text}
        kind = {"desc": self._title, "unit": self._unit, "unit_scale": self._unit == "B"}
        count = {"initial": done, "total": total or None, "postfix": dict(metrics or {})}
        bar = _Bar(**kind, **count, **look, miniters=1, dynamic_ncols=True, position=0)
        bar.start_t = self._started
        return bar


class _Bar(tqdm):
    """A bar without tqdm's background thread."""

    monitor_interval = 0


class _Lines:
    """A stream that turns each state of a bar into a line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._last = stream, ""

    def write(self, text: str) -> None:
        line = text.strip()
        if line and line != self._last:
            self._stream.write(f"{line}\n")
            self._last = line

    def flush(self) -> None:
        self._stream.flush()


class CheckpointStore(Protocol):
    """Storage for the state of an unfinished stage; `hand1000.storage.artifacts` has the durable one."""

    def workspace(self) -> AbstractContextManager[str | Path]:
        """Provide an empty folder, removed afterwards, to build a state where `save` can take it without a copy."""
        ...

    def restore(self, directory: Path, *, read_only: bool = False) -> bool:
        """Copy the last saved state into `directory`; return False when there is none.

        With `read_only` the caller changes no file, so that they may be links to the saved ones.
        """
        ...

    def save(self, directory: Path, digests: Mapping[str, str] | None = None) -> None:
        """Save `directory` as the new state; a crash on the way leaves the previous one.

        Args:
            directory: Folder of the files, which may be moved away.
            digests: The sha256 of some of the files by name, which are not read for it.
        """
        ...


class NullCheckpointStore:
    """A `CheckpointStore` that saves nothing."""

    def workspace(self) -> AbstractContextManager[str | Path]:
        """Provide a temporary folder of the system."""
        return TemporaryDirectory()

    def restore(self, directory: Path, *, read_only: bool = False) -> bool:
        """Return False: there is never a state."""
        return False

    def save(self, directory: Path, digests: Mapping[str, str] | None = None) -> None:
        """Drop `directory`."""
