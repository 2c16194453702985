"""Retries of an action that fails because of a network or a server."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from hand1000.core.interruption import sleep

T = TypeVar("T")


def call_with_retry(action: Callable[[], T], delays: Iterable[float], errors: tuple[type[Exception], ...]) -> T:
    """Call `action` until it returns, with one retry after each of `delays` (seconds) if it raises one of `errors`."""
    for delay in delays:
        try:
            return action()
        except errors:
            sleep(delay)
    return action()
