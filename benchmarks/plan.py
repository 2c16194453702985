"""The order of `make bench`, how long its parts take, and which of them an unfinished call has done."""

import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
UNFINISHED = ROOT / "build/bench/unfinished.json"
"""Names of the parts that a call has measured which was ended before its last part."""

GROWTH = "growth"
_SHORTEST, _LONGEST = 8.0, 40.0
"""Seconds for the repetitions of one row."""


@dataclass(frozen=True)
class Part:
    """How long a part takes on two threads of one core.

    Attributes:
        rows: Number of rows whose repetitions end after the time of a row.
        fixed: Seconds of everything else: preparations, and single measurements that take longer than a row's time.
    """

    rows: int
    fixed: float

    def estimate(self, seconds: float) -> float:
        """Return the seconds of the part if the repetitions of a row take `seconds`."""
        return self.fixed + self.rows * seconds


# Modules of `benchmarks` with a function `measure_rows(options)`, in the order of the table.
MODULES: dict[str, Part] = {
    "demo": Part(0, 345),
    "startup": Part(1, 15),
    "authors": Part(1, 15),
    "images": Part(3, 125),
    "training": Part(4, 45),
    "training_memory": Part(0, 360),
    "drawing": Part(3, 20),
    "distances": Part(3, 40),
    "storage": Part(7, 90),
}


def growth_seconds(items: int) -> float:
    """Return about how long the plot of growth up to `items` images takes."""
    return 20 + 0.06 * items


def choose_seconds(names: Iterable[str], items: int, available: float) -> float:
    """Return the time for the repetitions of one row with which the parts `names` end in `available` seconds.

    A tenth of the time stays free.
    """
    parts = [MODULES[name] for name in names if name in MODULES]
    fixed = sum(part.fixed for part in parts) + (growth_seconds(items) if GROWTH in names else 0)
    rows = sum(part.rows for part in parts)
    return min(max((0.9 * available - fixed) / max(rows, 1), _SHORTEST), _LONGEST)


def estimate_parts(names: Iterable[str], items: int, seconds: float) -> dict[str, float]:
    """Return the estimated seconds of each part."""
    return {name: growth_seconds(items) if name == GROWTH else MODULES[name].estimate(seconds) for name in names}


def describe_plan(estimates: Mapping[str, float], seconds: float) -> str:
    """Return the plan as text: the parts with their minutes, and all of them."""
    parts = ", ".join(f"{name} {estimate / 60:.1f}" for name, estimate in estimates.items())
    total = sum(estimates.values()) / 60
    return f"plan, in minutes: {parts}; together {total:.0f}, with {seconds:.0f} s for the repetitions of a row"


def read_done(path: Path = UNFINISHED) -> list[str]:
    """Return the parts that an unfinished call has measured at the present commit."""
    if not path.is_file():
        return []
    state = json.loads(path.read_text())
    return list(state["done"]) if state["commit"] == read_commit() else []


def write_done(done: Iterable[str], path: Path = UNFINISHED) -> None:
    """Note the parts that are done, for a later call; none removes the note."""
    names = list(done)
    if not names:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"commit": read_commit(), "done": names}))


def read_commit() -> str:
    """Return the commit of this checkout, "" outside of one."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip()
