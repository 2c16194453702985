"""The exceptions that a user reads, and how foreign errors become theirs."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Hand1000Error(Exception):
    """A fault of the input or of the environment, described in one line.

    The message names the input at fault and the remedy. The command line prints it without a traceback and exits
    with status 2; results that are already published remain. A line break or control character of a name in the
    message is shown as an escape.
    """

    def __str__(self) -> str:
        """Return the message in one printable line."""
        return escape_unprintable(super().__str__())


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
    """Turn the system's refusal to write below `path` into a `Hand1000Error`, also inside of a library.

    Raises:
        Hand1000Error: The disk is full, the quota is used up, `path` is not writable, or memory or files ran out.
    """
    try:
        yield
    except Exception as error:
        fault = explain_system_error(error, path)
        if fault is None:
            raise
        raise fault from error


@contextmanager
def translate_system_errors(place: Path | str) -> Iterator[None]:
    """Turn what is left of the system's errors at the top of a program into a `Hand1000Error`.

    Args:
        place: The folder to name where an error names no file.

    Raises:
        Hand1000Error: A disk, the memory or the open files ran out, or a file must not be read or written.
    """
    try:
        yield
    except Exception as error:
        fault = explain_system_error(error, place, at_place=False)
        if fault is None:
            raise
        raise fault from error


def explain_system_error(error: BaseException, place: Path | str, *, at_place: bool = True) -> Hand1000Error | None:
    """Return what a user reads in place of an error that the operating system caused, None for every other error.

    Libraries pass the system's error on in their own exceptions, some of them as text alone: safetensors, tokenizers,
    shutil, sqlite, Arrow. torch and numpy keep only that they could not write.

    Args:
        error: An error, with what caused it.
        place: The folder or file that is being written.
        at_place: Whether the error is certainly about `place`. Otherwise a refused permission is explained only where
            the error names its file, and the file that it names replaces `place`.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, Hand1000Error):
        code = _error_number(cause)
        named = getattr(cause, "filename2", None) or getattr(cause, "filename", None)
        if code in _MEMORY:
            return Hand1000Error(f"out of memory; {_MORE_MEMORY}")
        if code in _REFUSED and not at_place:
            return Hand1000Error(f"{named}: permission denied; change its rights, or choose another") if named else None
        if code in _FAULTS:
            text = str(place if at_place or not named else named)
            return Hand1000Error(f"{escape_unprintable(text)}: {_FAULTS[code]}")
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return None


_NOT_WHOLE = -1
"""Stands for the unknown system error of a library that could not write all of a file."""
_NO_TEMPORARY = -2
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_MEMORY = (errno.ENOMEM,)
_MORE_MEMORY = "choose smaller batches, or a machine with more memory, then run again"
_NO_SPACE = "no space left; free some or choose another folder, then run again"
_TOO_MANY = "too many open files; raise the limit (ulimit -n), then run again"
_FAULTS = {
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _NO_SPACE,
    errno.EFBIG: "the file is too large for the disk or for this process (ulimit -f); choose another folder",
    errno.EIO: "the disk reports an error; check it, or choose another folder, then run again",
    errno.EMFILE: _TOO_MANY,
    errno.ENFILE: _TOO_MANY,
    _NOT_WHOLE: "a file could not be written completely; free some space, check the disk, then run again",
    _NO_TEMPORARY: "no temporary folder can be written; set TMPDIR to one that can, then run again",
} | dict.fromkeys(_REFUSED, "not writable; choose another folder")
_BY_TEXT = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_TEXTS = {os.strerror(code): code for code in _BY_TEXT} | {
    "database or disk is full": errno.ENOSPC,
    "can't allocate memory": errno.ENOMEM,
    "out of memory": errno.ENOMEM,
    "enforce fail at inline_container.cc": _NOT_WHOLE,
    "No usable temporary directory found": _NO_TEMPORARY,
}
_CODE_IN_TEXT = re.compile(r"\[Errno (\d+)\]|\(os error (\d+)\)", re.IGNORECASE)
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")


def _error_number(error: BaseException) -> int:
    """Return the number of the system error that `error` is or describes, 0 for none."""
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    code = getattr(error, "errno", None)
    if isinstance(code, int) and code in _FAULTS:
        return code
    text = str(error)[:10_000]
    if match := _CODE_IN_TEXT.search(text):
        return int(match[1] or match[2])
    if _SHORT_WRITE.search(text):
        return _NOT_WHOLE
    return next((code for part, code in _TEXTS.items() if part in text), 0)
