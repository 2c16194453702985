"""The one exception that the user is meant to read."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Hand1000Error(Exception):
    """A fault in the input or its surroundings, told in one line.

    The message names the input at fault and the remedy. The command line prints it without a traceback and exits
    with status 2; nothing that was already published is lost.
    """


class TransientError(Hand1000Error):
    """A fault that may be gone at another attempt: a service that fails or does not answer. A cluster tries again."""


def one_line(error: object) -> str:
    """The text of an error without line breaks, or the name of its class where it has no text."""
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def translate_write_errors(place: Path | str) -> Iterator[None]:
    """Turn the system's refusals to write below `place` into a `Hand1000Error`.

    Raises:
        Hand1000Error: the disk is full, the quota is used up, or the place may not be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Hand1000Error(f"{place}: no space left; free some or choose another place, then run again") from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise Hand1000Error(f"{place}: may not be written; choose another place") from error
        raise
