"""Faults at a given operation on files, which the library of `interposer.c` injects into this process."""

import ctypes
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("interposer.c")
COUNT, SIGNAL, REFUSE, CLOCK = range(4)
SINGLE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Variables under which importing the libraries starts no thread, because a fork copies only the calling one."""


@dataclass(frozen=True)
class Injection:
    """A fault at the operation number `at`, counted from 1.

    `action` is `SIGNAL` with the number of a signal as `value`, `REFUSE` with an errno, or `CLOCK` with seconds. With
    `torn` a write is cut in the middle before the signal.
    """

    action: int = COUNT
    at: int = 0
    value: int = 0
    torn: bool = False


def kill_at(at: int, signal_number: int, *, torn: bool = False) -> Injection:
    """Send a signal at an operation."""
    return Injection(SIGNAL, at, signal_number, torn)


def full_disk_at(at: int) -> Injection:
    """Refuse everything that needs space from an operation on."""
    return Injection(REFUSE, at, errno.ENOSPC)


def move_clock_at(at: int, seconds: int) -> Injection:
    """Move the wall clock at an operation."""
    return Injection(CLOCK, at, seconds)


def build(folder: Path) -> Path:
    """Compile the library into `folder`, unless this source was compiled there before."""
    library = folder / "interposer.so"
    if not library.exists() or library.stat().st_mtime < SOURCE.stat().st_mtime:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise SystemExit("tests.faults: no C compiler; install gcc")
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f"{os.getpid()}.so"
        options = ["-O2", "-Wall", "-Werror", "-fPIC", "-shared"]
        subprocess.run([compiler, *options, "-o", str(temporary), str(SOURCE), "-ldl"], check=True)
        temporary.rename(library)
    return library


def environment(folder: Path) -> dict[str, str]:
    """Return the variables of a Python process that can inject faults, and whose imports start no thread."""
    return {**os.environ, **SINGLE_THREAD, "LD_PRELOAD": str(build(folder))}


def is_loaded() -> bool:
    """Return whether this process was started with the library."""
    return hasattr(ctypes.CDLL(None), "interposer_arm")


def arm(folders: Sequence[Path], injection: Injection) -> None:
    """Count the operations below `folders` from now on, and inject a fault."""
    paths = "\n".join(str(folder) for folder in folders).encode()
    arguments = (injection.action, ctypes.c_long(injection.at), ctypes.c_long(injection.value), int(injection.torn))
    ctypes.CDLL(None).interposer_arm(paths, *arguments)


def disarm() -> int:
    """Stop counting; return the number of operations."""
    count = ctypes.CDLL(None).interposer_disarm
    count.restype = ctypes.c_long
    return count()


def reexecute(folder: Path, module: str) -> None:
    """Start this process again with the library, unless it has it."""
    if not is_loaded():
        os.execve(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]], environment(folder))
