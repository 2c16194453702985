"""Temporary folders that are removed when their process ends."""

import atexit
import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hand1000.core.errors import translate_write_errors

_PREFIX = "hand1000-scratch-"


def process_scratch(parent: Path | None) -> Path:
    """Create an empty folder below `parent` (the system's temporary folder if None), removed when the process ends.

    A killed process cannot remove its folder. Therefore each process locks its folder, and the next process that
    creates one in the same place removes all that are not locked.
    """
    folder = parent or Path(tempfile.gettempdir())
    with translate_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        remove_abandoned(folder)
        while (path := _locked(Path(tempfile.mkdtemp(prefix=_PREFIX, dir=folder)))) is None:
            pass
    atexit.register(_remove_own, path, os.getpid())
    return path


@contextlib.contextmanager
def temporary_folder(parent: Path | None) -> Iterator[Path]:
    """Provide an empty folder as `process_scratch` does, and remove it at the end."""
    folder = process_scratch(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _locked(path: Path) -> Path | None:
    """Lock the folder until the process ends; return None if another process has already removed it as abandoned."""
    with contextlib.suppress(OSError):
        # The lock is held until the process ends. A filesystem without locks removes no folder as abandoned either.
        fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX)
    return path if path.is_dir() else None


def remove_abandoned(parent: Path | None) -> None:
    """Remove what processes that do not run any more have left below `parent`, as `process_scratch` does."""
    folder = parent or Path(tempfile.gettempdir())
    for path in folder.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path)
            finally:
                os.close(lock)


def _remove_own(path: Path, process: int) -> None:
    if os.getpid() == process:  # A forked child inherits the hook, not the folder.
        shutil.rmtree(path, ignore_errors=True)
