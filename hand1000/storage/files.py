"""Atomic writes of files and folders, and reading of JSON with errors that name the line.

A write goes to a temporary file in the target's own folder, which is then renamed to the target. A process killed at
any point leaves the old content or the new one. When the system refuses a write, the error is a `Hand1000Error`.

The temporary file of a target has a fixed name and is locked while its writer lives: the next write to the same target
takes over what a killed process left.
"""

import contextlib
import errno
import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar
from uuid import uuid4

from pydantic import BaseModel, ValidationError

from hand1000.config.base import format_validation_error
from hand1000.core.documents import load_json, parse_json
from hand1000.core.errors import Hand1000Error, one_line, translate_write_errors
from hand1000.storage.digests import canonical_json, digest_bytes

Record = TypeVar("Record", bound=BaseModel)
T = TypeVar("T")

_MAX_LINE_BYTES = 16 << 20
_MAX_NAME_BYTES = 240
_MAX_RETRIES = 20
_BACKUP = re.compile(r"[0-9a-f]{32}\.old")


def write_bytes(path: Path, data: bytes, *, scratch: Path | None = None) -> None:
    """Write `data` to `path` atomically and durably; create its folder if necessary.

    The temporary file is in the folder `scratch` if that is given and on the same filesystem.
    """
    _write_chunks(path, [data], scratch)


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, as `write_bytes` does."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: object) -> None:
    """Write a JSON value or a pydantic model in canonical form with a final newline, as `write_bytes` does."""
    write_text(path, canonical_json(value) + "\n")


def write_jsonl(path: Path, rows: Iterable[object]) -> None:
    """Write JSON Lines from an iterable that is consumed while writing, as `write_bytes` does."""
    _write_chunks(path, ((canonical_json(row) + "\n").encode() for row in rows))


def _write_chunks(path: Path, chunks: Iterable[bytes], scratch: Path | None = None) -> None:
    with translate_write_errors(path):
        temporary, file = _open_temporary(path, scratch)
        with file:
            try:
                file.writelines(chunks)
                file.flush()
                os.fsync(file.fileno())
                retry_without_folder(path.parent, lambda: os.replace(temporary, path))
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise


def _open_temporary(path: Path, scratch: Path | None) -> tuple[Path, IO[bytes]]:
    """Create the temporary file for `path`, empty, and lock it if the filesystem has locks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unique = f".{uuid4().hex}.part"
    if scratch is not None and scratch.stat().st_dev == path.parent.stat().st_dev:
        return scratch / unique, open(scratch / unique, "xb")
    name = path.name if len(os.fsencode(path.name)) < _MAX_NAME_BYTES else digest_bytes(os.fsencode(path.name))
    file, *unused = None, *(path.with_name(f".{name}{number}.part") for number in ("", ".1", ".2"))
    while file is None and unused:  # Each other one has a writer of the same target at work.
        temporary = unused.pop(0)
        file = retry_without_folder(path.parent, partial(_open_locked, temporary))
    for other in unused:
        _remove_dead(other)
    if file is None:
        temporary = path.with_name(unique)
        file = retry_without_folder(path.parent, lambda: open(temporary, "xb"))  # noqa: SIM115 (the caller closes it)
    return temporary, file


def _remove_dead(temporary: Path) -> None:
    """Remove a temporary file whose writer was killed."""
    if temporary.exists() and (file := _open_locked(temporary)) is not None:
        with file:
            temporary.unlink(missing_ok=True)


def _open_locked(path: Path) -> IO[bytes] | None:
    """Open a file for writing, empty and locked; return None if another writer has it."""
    try:
        file = open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+b")  # noqa: SIM115
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EACCES, errno.EPERM, errno.EISDIR):
            return None  # Something else of this name, or the file of another user.
        raise
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Its former writer may have renamed it to the target before it let go of the lock.
        if os.path.samestat(os.fstat(file.fileno()), os.lstat(path)):
            file.truncate()
            return file
    except OSError:
        pass
    file.close()
    return None


def retry_without_folder(folder: Path, action: Callable[[], T]) -> T:
    """Call `action`, again with a new `folder` while another process removes it at the same time."""
    for _ in range(_MAX_RETRIES):
        with contextlib.suppress(FileNotFoundError):
            return action()
        folder.mkdir(parents=True, exist_ok=True)
    return action()


def read_json(path: Path) -> Any:
    """Return the JSON value in `path`.

    Raises:
        Hand1000Error: No such file, or it is not JSON; the message names the line.
    """
    return parse_json(_read_bytes(path), str(path))


def read_jsonl(path: Path, name: str = "") -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the line number, from 1, and the object of each line of a JSON Lines file that is not blank.

    Args:
        path: The file, which is read line by line.
        name: What errors call it; by default its path.

    Raises:
        Hand1000Error: No such file, or a line that is not a JSON object; the message names file and line.
    """
    name = name or str(path)
    with _open_input(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE_BYTES), b""), start=1):
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if not text.strip():
                continue
            try:
                row = load_json(text)
            except ValueError as error:
                reason = f"line {number}: not JSON: {one_line(error)}"
                raise Hand1000Error(f"{name}: {reason}; correct or remove the line") from error
            if not isinstance(row, dict):
                raise Hand1000Error(f"{name}: line {number}: not a JSON object; write one object with names per line")
            yield number, row


def read_records(path: Path, model: type[Record], name: str = "") -> Iterator[tuple[int, Record]]:
    """Yield line numbers and validated records, as `read_jsonl` does; errors call the file `name` if it has one."""
    for number, row in read_jsonl(path):
        try:
            yield number, model.model_validate(row)
        except ValidationError as error:
            raise Hand1000Error(format_validation_error(error, f"{name or path}: line {number}")) from error


def _read_bytes(path: Path) -> bytes:
    with _open_input(path) as file:
        return file.read()


@contextlib.contextmanager
def _open_input(path: Path) -> Iterator[IO[bytes]]:
    try:
        with open(path, "rb") as file:
            yield file
    except (FileNotFoundError, NotADirectoryError):
        raise Hand1000Error(f"{path}: no such file") from None
    except OSError as error:
        raise Hand1000Error(f"{path}: cannot be read: {error.strerror}") from error


def replace_file(source: Path, target: Path) -> None:
    """Move the complete file `source` to `target` on the same filesystem, atomically and durably."""
    with translate_write_errors(target):
        with open(source, "rb") as file:
            os.fsync(file.fileno())
        retry_without_folder(target.parent, lambda: os.replace(source, target))


def replace_directory(source: Path, target: Path) -> None:
    """Move the folder `source` to `target` on the same filesystem, and remove the previous `target`.

    If `target` is absent or empty this is one atomic rename. Otherwise the previous folder is first renamed to a
    backup: a process killed in between leaves no `target`, but never a mixture of both. The backups that killed
    processes left are removed as well.
    """
    with translate_write_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        stem = f".{target.name[:80]}."
        if target.is_dir() and any(target.iterdir()):
            os.rename(target, target.with_name(f"{stem}{uuid4().hex}.old"))
        os.rename(source, target)
        for path in target.parent.iterdir():
            if path.name.startswith(stem) and _BACKUP.fullmatch(path.name.removeprefix(stem)):
                shutil.rmtree(path, ignore_errors=True)
