"""Retries of an action that fails because of a network or a server."""

import time
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def call_with_retry(action: Callable[[], T], delays: Iterable[float], errors: tuple[type[Exception], ...]) -> T:
    """Call `action` until it returns.

    Args:
        action: Function without arguments; safe to call again after it failed.
        delays: Seconds to wait before each further call; their number is the number of retries.
        errors: Exceptions after which the action is called again; any other one is raised at once.

    Raises:
        Exception: The error of the last call.
    """
    for delay in delays:
        try:
            return action()
        except errors:
            time.sleep(delay)
    return action()
