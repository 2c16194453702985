"""The exceptions that a user reads, and how foreign errors become theirs."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Hand1000Error(Exception):
    """A fault of the input or of the environment, described in one line.

    The message names the input at fault and the remedy. The command line prints it without a traceback and exits
    with status 2; results that are already published remain.
    """


class TransientError(Hand1000Error):
    """A fault that may be gone at another attempt, such as a service that does not answer. A cluster retries it."""


def one_line(error: object) -> str:
    """Return the text of an error without line breaks, or the name of its class where it has no text."""
    return " ".join(str(error).split()) or type(error).__name__


def escape_unprintable(text: str) -> str:
    """Return `text` with line breaks, control characters and undecodable bytes of file names as escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


@contextmanager
def translate_load_errors(source: str, kind: str) -> Iterator[None]:
    """Turn any error of a library that loads the model `source` as `kind` into a `Hand1000Error`.

    A malformed file makes the libraries raise errors of every kind, and tokenizers a panic, which is no `Exception`.
    """
    try:
        yield
    except (Hand1000Error, MemoryError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = escape_unprintable(one_line(error))[:300]
        raise Hand1000Error(f"{escape_unprintable(source)}: cannot be loaded as {kind}: {reason}") from error


@contextmanager
def translate_write_errors(path: Path | str) -> Iterator[None]:
    """Turn the system's refusal to write below `path` into a `Hand1000Error`.

    Raises:
        Hand1000Error: The disk is full, the quota is used up, or `path` is not writable.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Hand1000Error(f"{path}: no space left; free some or choose another folder, then run again") from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise Hand1000Error(f"{path}: not writable; choose another folder") from error
        raise
