"""Files and folders that are whole or not there.

Every write goes to a temporary name in the target's own folder and is renamed over the target, so that a process
killed at any point leaves the old content or the new one. A refusal of the system is told as `Hand1000Error`.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

from hand1000.core.errors import Hand1000Error, translate_write_errors
from hand1000.storage.digests import canonical_json


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically and durably; its folder is made if need be."""
    _write_pieces(path, [data])


def write_text(path: Path, text: str) -> None:
    """The same for UTF-8 text."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: object) -> None:
    """The same for a JSON value or a pydantic model, in its canonical form and with a newline at the end."""
    write_text(path, canonical_json(value) + "\n")


def write_jsonl(path: Path, rows: Iterable[object]) -> None:
    """The same for JSON Lines, one value a line. `rows` is consumed as it is written."""
    _write_pieces(path, ((canonical_json(row) + "\n").encode() for row in rows))


def _write_pieces(path: Path, pieces: Iterable[bytes]) -> None:
    temporary = path.with_name(f".{path.name[:80]}.{uuid4().hex}.part")
    with translate_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "xb") as file:
                file.writelines(pieces)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def read_json(path: Path) -> Any:
    """The JSON value in `path`.

    Raises:
        Hand1000Error: no such file, or it is not JSON; the message names the line.
    """
    try:
        return json.loads(_read_bytes(path))
    except json.JSONDecodeError as error:
        raise Hand1000Error(f"{path}: line {error.lineno}: not JSON: {error.msg}") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise Hand1000Error(f"{path}: not JSON: {error}") from error


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSON Lines file with their line numbers from 1; blank lines are passed over.

    Raises:
        Hand1000Error: no such file, or a line that is not a JSON object; the message names file and line.
    """
    # Split at "\n" alone: str.splitlines also breaks at characters that JSON strings may hold.
    for number, line in enumerate(_read_bytes(path).split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise Hand1000Error(f"{path}: line {number}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise Hand1000Error(f"{path}: line {number}: not a JSON object")
        yield number, row


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise Hand1000Error(f"{path}: no such file") from None
    except (IsADirectoryError, PermissionError) as error:
        raise Hand1000Error(f"{path}: cannot be read: {error.strerror}") from error


def replace_directory(built: Path, target: Path) -> None:
    """Move the finished folder `built` to `target`, in place of what is there.

    Both lie on one filesystem. Where `target` is absent or empty this is one atomic rename. Otherwise the old folder
    is first renamed aside: a process killed in between leaves no `target`, never a mixture of both.
    """
    with translate_write_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir() and any(target.iterdir()):
            aside = target.with_name(f".{target.name[:80]}.{uuid4().hex}.old")
            os.rename(target, aside)
            os.rename(built, target)
            shutil.rmtree(aside)
        else:
            os.rename(built, target)
