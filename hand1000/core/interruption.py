"""SIGTERM and SIGINT: a long computation stops between two steps, saves its state and ends with a documented status.

A command installs the handlers for its process. Outside of `deferred_interruption` a signal raises `Interrupted` at
once, as Python's own SIGINT does. Within it the signal is only noted; the computation asks between its steps with
`raise_if_interrupted`, which saves first. Nothing is installed in a library's use, so that nothing is ever noted there.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_BASE_STATUS = 128
_REPEAT_SECONDS = 1.0
"""A repeated signal within this time is the same one: a terminal and torch's launcher both send it."""


class Interrupted(KeyboardInterrupt):
    """A signal has stopped the computation; what it saved is kept, and the same command continues from there.

    It is no `Exception`, so that code which skips a faulty item cannot take it for one.

    Attributes:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; the same command continues from there")
        self.number = number

    @property
    def exit_status(self) -> int:
        """128 + the number of the signal: 130 for SIGINT, 143 for SIGTERM."""
        return _BASE_STATUS + self.number


class _State:
    """What the process knows about signals."""

    def __init__(self) -> None:
        self.installed = False
        self.exits = False
        self.deferring = 0
        self.holding = 0
        self.number = 0
        self.noted_at = 0.0


_state = _State()


def install_handlers(*, exits: bool = False, replace: bool = False) -> bool:
    """Handle SIGTERM and SIGINT until the process ends; return False where nothing can be or need be installed.

    Nothing is installed outside of the main thread, and a signal that is ignored stays so.

    Args:
        exits: Whether a signal outside of `deferred_interruption` ends the process instead of raising `Interrupted`,
            which some frameworks answer with a status of their own.
        replace: Whether to take the place of another library's handlers: flytekit ends the process at once at SIGINT.
    """
    if _state.installed or threading.current_thread() is not threading.main_thread():
        return False
    _state.installed, _state.exits = True, exits
    for number in SIGNALS:
        handler = signal.getsignal(number)
        if handler in (signal.SIG_DFL, signal.default_int_handler) or (replace and handler != signal.SIG_IGN):
            signal.signal(number, _note)
    return True


@contextmanager
def handle_signals() -> Iterator[None]:
    """Handle SIGTERM and SIGINT within the context, as `install_handlers` does, and restore the handlers after it."""
    previous = {number: signal.getsignal(number) for number in SIGNALS}
    installed = install_handlers()
    try:
        yield
    finally:
        if installed:
            for number, handler in previous.items():
                signal.signal(number, handler)
            _state.__init__()  # type: ignore[misc]


@contextmanager
def deferred_interruption() -> Iterator[None]:
    """Let a signal within the context wait until `raise_if_interrupted` is called, at the latest until its end.

    An error after the signal is taken for its consequence: a terminal sends SIGINT to all processes, also to those
    that this one waits for.

    Raises:
        Interrupted: A signal came, and nothing within the context raised it.
    """
    _state.deferring += 1
    try:
        yield
    except Exception as error:
        if _state.number:
            raise Interrupted(_state.number) from error
        raise
    finally:
        _state.deferring -= 1
    raise_if_interrupted()


def is_interrupted() -> bool:
    """Whether a signal asks this process to stop."""
    return bool(_state.number)


def raise_if_interrupted(save: Callable[[], None] | None = None) -> None:
    """Stop between two steps if a signal has come.

    Args:
        save: Saves the state of the computation; called before the error is raised.

    Raises:
        Interrupted: A signal has come.
    """
    if _state.number and not _state.holding:
        if save is not None:
            save()
        raise Interrupted(_state.number)


@contextmanager
def uninterrupted_step() -> Iterator[None]:
    """Keep `raise_if_interrupted` from stopping within the context: a step of which no part could be saved."""
    _state.holding += 1
    try:
        yield
    finally:
        _state.holding -= 1


def sleep(seconds: float) -> None:
    """Wait, but no longer than until a signal comes; Python's own `sleep` goes on after the handler.

    Raises:
        Interrupted: A signal has come.
    """
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        raise_if_interrupted()
        time.sleep(min(left, 0.2))
    raise_if_interrupted()


def _note(number: int, frame: FrameType | None) -> None:
    now = time.monotonic()
    if _state.number:
        if now - _state.noted_at > _REPEAT_SECONDS:
            # Not by the signal's default: process 1 of a container would survive it.
            os._exit(_BASE_STATUS + number)
        return
    _state.number, _state.noted_at = number, now
    if not _state.deferring:
        raise SystemExit(_BASE_STATUS + number) if _state.exits else Interrupted(number)
    # Not through sys.stderr, which the interrupted code may be in the middle of writing to.
    name = signal.Signals(number).name
    os.write(2, f"hand1000: {name}: stopping after this step; another signal ends it at once\n".encode())


def _reset_in_child() -> None:
    """Give a forked child the signals that it expects: the one that stops it, and none that a terminal sends to all."""
    if not _state.installed:
        return
    _state.__init__()  # type: ignore[misc]
    for number, handler in ((signal.SIGTERM, signal.SIG_DFL), (signal.SIGINT, signal.SIG_IGN)):
        if signal.getsignal(number) is _note:
            signal.signal(number, handler)


os.register_at_fork(after_in_child=_reset_in_child)
