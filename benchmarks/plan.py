"""The order of `make bench`, how long its parts take, and which of them an unfinished call has done."""

import json
import subprocess
from collections.abc import Collection, Iterable, Mapping
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
        before: Further seconds where a former build is compared.
    """

    rows: int
    fixed: float
    before: float = 0.0


# Modules of `benchmarks` with a function `measure_rows(options)`, in the order of the table.
MODULES: dict[str, Part] = {
    "demo": Part(0, 345),
    "startup": Part(1, 15),
    "authors": Part(1, 15),
    "images": Part(3, 150, before=140),
    "training": Part(4, 45),
    "training_memory": Part(0, 360),
    "drawing": Part(3, 20),
    "distances": Part(2, 95),
    "storage": Part(7, 90),
}


def growth_seconds(items: int) -> float:
    """Return about how long the plot of growth up to `items` images takes."""
    return 30 + 0.066 * items


def choose_seconds(names: Collection[str], items: int, available: float, *, before: bool = False) -> float:
    """Return the time for the repetitions of one row with which the parts `names` end in `available` seconds.

    A seventh of the time stays free. `before` is whether a former build is compared.
    """
    fixed = sum(estimate_parts(names, items, 0.0, before=before).values())
    rows = sum(MODULES[name].rows for name in names if name in MODULES)
    return min(max((available * 6 / 7 - fixed) / max(rows, 1), _SHORTEST), _LONGEST)


def estimate_parts(names: Collection[str], items: int, seconds: float, *, before: bool = False) -> dict[str, float]:
    """Return the estimated seconds of each part if the repetitions of a row take `seconds`."""
    estimates = {}
    for name in names:
        if name == GROWTH:
            estimates[name] = growth_seconds(items)
        else:
            part = MODULES[name]
            estimates[name] = part.fixed + part.rows * seconds + (part.before if before else 0.0)
    return estimates


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
