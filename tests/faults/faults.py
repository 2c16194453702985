"""The faults of this machine: signals, a full disk, little memory, a moved clock, two processes, damaged files."""

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults.cells import INTERRUPTED, REFUSED, Trial
from tests.faults.forks import Child
from tests.faults.interposer import full_disk_at, kill_at, move_clock_at
from tests.faults.recording import WHOLE, link_tree

DAY = 86_400
TIMED_SHARE = 0.2
"""Share of the kills at a moment of time, which also hits computations; the others hit an operation on files."""


def kill(trial: Trial) -> None:
    """SIGKILL before an operation on files, within a write, or at any time."""
    if trial.random.random() < TIMED_SHARE:
        trial.start().wait(kill_after=max(0.01, trial.random.uniform(0, trial.undisturbed.seconds)))
    else:
        torn = trial.random.random() < 0.5
        trial.start(kill_at(trial.operation(), signal.SIGKILL, torn=torn)).wait()
    trial.finish()


def terminate(trial: Trial) -> None:
    """SIGTERM; the stage ends by itself with the documented status, or had finished."""
    _interrupt(trial, signal.SIGTERM)


def interrupt(trial: Trial) -> None:
    """SIGINT, as Ctrl-C sends it."""
    _interrupt(trial, signal.SIGINT)


def _interrupt(trial: Trial, number: signal.Signals) -> None:
    ending = trial.start(kill_at(trial.operation(), number)).wait()
    trial.disturb(ending, 0, INTERRUPTED[number], -number)
    trial.finish()


def fill_disk(trial: Trial) -> None:
    """No space from an operation on."""
    trial.disturb(trial.start(full_disk_at(trial.operation())).wait(), 0, REFUSED)
    trial.finish()


def fill_filesystem(trial: Trial) -> None:
    """A small filesystem of memory that is full; the rerun has space."""
    place = trial.folder / "small"
    place.mkdir()
    used = sum(path.stat().st_size for path in trial.stage.before.rglob("*") if path.is_file())
    room = int(trial.random.uniform(0.1, 0.9) * 2**20)
    size = (used + room + 2**21) // 4096 * 4096
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=True)
    try:
        shutil.copytree(trial.stage.before, place / "root")
        trial.__dict__["root"] = place / "root"
        filler = place / "filler"
        free = shutil.disk_usage(place).free - room
        if free > 0:
            filler.write_bytes(bytes(free))
        trial.disturb(trial.start(environment={"TMPDIR": str(place), "HOME": str(place)}).wait(), 0, REFUSED)
        filler.unlink(missing_ok=True)
        subprocess.run(["mount", "-o", "remount,size=1g", str(place)], check=True)
        trial.finish()
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def exhaust_memory(trial: Trial) -> None:
    """An address space with little room: allocations fail in Python and in libraries, which may abort."""
    room = int(2 ** trial.random.uniform(21, 28))
    ending = trial.start(memory=room).wait()
    if ending.hung:
        trial.findings.endings.append("hung")
    trial.finish()


def move_clock(trial: Trial) -> None:
    """The wall clock jumps by a minute to a year in either direction."""
    seconds = trial.random.choice((-365 * DAY, -DAY, -60, 60, DAY, 365 * DAY))
    trial.disturb(trial.start(move_clock_at(trial.operation(), seconds)).wait(), 0)
    trial.finish()


def run_twice_at_once(trial: Trial) -> None:
    """Two processes do the same work on one root; in every second trial one of them is killed."""
    victim = kill_at(trial.operation(), signal.SIGKILL) if trial.random.random() < 0.5 else None
    first = trial.start(victim)
    time.sleep(trial.random.uniform(0, 0.1))
    second = trial.start()
    ending = first.wait()
    if victim is None:
        trial.disturb(ending, 0)
    trial.disturb(second.wait(), 0)
    trial.finish()


def lock_database(trial: Trial) -> None:
    """Another program holds MLflow's database for some seconds."""
    database, ready = trial.root / "mlflow.db", trial.folder / "locked"
    seconds = trial.random.uniform(2, 8)

    def hold() -> None:
        # In a process of its own: sqlite takes a forked child for a part of the process that has the lock.
        with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            ready.touch()
            time.sleep(seconds)

    holder = Child(hold, trial.folder)
    while not ready.exists():
        time.sleep(0.01)
    child = trial.start()
    holder.wait()
    trial.disturb(child.wait(), 0, REFUSED)
    trial.finish()


def damage_result(trial: Trial) -> None:
    """A file that the finished stage has written is damaged; the next run replaces it."""
    root = trial.folder / "root"
    link_tree(trial.stage.after, root)
    trial.__dict__["root"] = root
    name = trial.stage.name
    kinds: dict[str, list[Path]] = {}
    for folder in ("artifacts", "results", "provenance"):
        for path in sorted((root / folder / ("" if name == WHOLE else name)).rglob("*")):
            if path.is_file():
                kinds.setdefault(f"{folder} {path.suffix}", []).append(path)
    if not kinds:
        return trial.finish()
    path = trial.random.choice(kinds[trial.random.choice(sorted(kinds))])
    damage(path, trial)
    return trial.finish()


def damage_input(trial: Trial) -> None:
    """An artifact that the stage reads is damaged: it must not be used."""
    paths = [path for path in sorted((trial.root / "artifacts").rglob("*")) if path.is_file() and path.stat().st_size]
    if not paths:
        return trial.finish()
    path = trial.random.choice(paths)
    whole = path.read_bytes()
    damage(path, trial)
    trial.disturb(trial.start().wait(), 0, REFUSED)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(whole)
    return trial.finish()


def damage_checkpoint(trial: Trial) -> None:
    """The state of a killed run is damaged: the next one starts at the beginning."""
    saved = trial.root / "checkpoints" / trial.stage.name
    for _ in range(4):
        trial.start(kill_at(trial.operation(), signal.SIGKILL)).wait()
        paths = [path for path in sorted(saved.rglob("*")) if path.is_file() and path.stat().st_size]
        if paths:
            damage(trial.random.choice(paths), trial)
            break
    trial.finish()


def damage(path: Path, trial: Trial) -> None:
    """Flip a byte, cut the file, or empty it; the file gets a new inode, because others link to the old one."""
    data = bytearray(path.read_bytes())
    kind = trial.random.choice(("flipped", "cut", "emptied")) if data else "emptied"
    if kind == "flipped":
        data[trial.random.randrange(len(data))] ^= 1 << trial.random.randrange(8)
    elif kind == "cut":
        data = data[: trial.random.randrange(len(data))]
    else:
        data = bytearray()
    status = path.stat()
    path.unlink()
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    trial.damaged = f"{path.relative_to(trial.root)} {kind}"


LOCAL: dict[str, tuple[Callable[[Trial], None], int]] = {
    "SIGKILL": (kill, 50),
    "SIGTERM": (terminate, 4),
    "SIGINT": (interrupt, 4),
    "disk full": (fill_disk, 6),
    "small filesystem": (fill_filesystem, 2),
    "out of memory": (exhaust_memory, 3),
    "clock jump": (move_clock, 3),
    "two processes": (run_twice_at_once, 4),
    "MLflow locked": (lock_database, 1),
    "damaged result": (damage_result, 6),
    "damaged input": (damage_input, 3),
    "damaged checkpoint": (damage_checkpoint, 3),
}
"""Each fault with its number of trials for each stage."""
