"""`make demo` in a fresh clone with empty caches, and the same command again.

The clone has the last commit of this checkout. Its installation needs the package index, as that of any newcomer.
"""

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.rows import BenchOptions, Row, failed_row, log_start

_ROOT = Path(__file__).parents[1]
_FIRST, _SECOND = "`make demo` in a fresh clone, caches empty", "a second, unchanged `make demo`"
_FORMER_SECONDS = 632.0
"""What the first build took whose parts were timed, on two threads of one core."""

_DONE = re.compile(r"^(\w+)(?: [^:\n]*)?: done in ([\d.]+) s$", re.MULTILINE)


def measure_rows(options: BenchOptions) -> Iterator[Row]:
    """Yield the rows of the demo; none in short, as there is nothing to compare."""
    if options.short:
        return
    with tempfile.TemporaryDirectory(prefix="hand1000-demo-") as folder:
        yield from _measure(Path(folder), options)


def _measure(folder: Path, options: BenchOptions) -> Iterator[Row]:
    clone, peer = folder / "hand1000", "the first build that was timed, 10:32"
    log_start(_FIRST, peer)
    try:
        subprocess.run(["git", "clone", "--quiet", str(_ROOT), str(clone)], check=True, capture_output=True, text=True)
        first, log = _run_demo(clone, folder)
    except subprocess.CalledProcessError as error:
        yield failed_row(_FIRST, peer, error)
        yield failed_row(_SECOND, "the first", "the first one failed")
        return
    stages = {name: float(seconds) for name, seconds in _DONE.findall(log)}
    rest = first - sum(stages.values())
    longest = sorted(stages.items(), key=lambda item: -item[1])[:6]
    note = f"installation, imports and start {rest:.0f} s, " + ", ".join(f"{name} {s:.1f}" for name, s in longest)
    yield Row(_FIRST, peer, (first,), (_FORMER_SECONDS,), limit=300.0, note=note)
    log_start(_SECOND, "the first")
    made = _list_artifacts(clone)
    again: list[float] = []
    try:
        while len(again) < min(options.repeats, 5):
            again.append(_run_demo(clone, folder)[0])
    except subprocess.CalledProcessError as error:
        yield failed_row(_SECOND, "the first", error)
        return
    equal = _list_artifacts(clone) == made
    yield Row(_SECOND, "the first", tuple(again), (first,), equal=equal, limit=4.0)


def _run_demo(clone: Path, folder: Path) -> tuple[float, str]:
    """Return the seconds of `make demo` and what it printed."""
    # Without the variables of the `make` and the environment that run this.
    hidden = ("MAKE", "MFLAGS", "VIRTUAL_ENV", "MLFLOW", "HAND1000", "PYTHONPATH")
    variables = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    variables |= {name: str(folder / "caches" / name) for name in ("UV_CACHE_DIR", "PIP_CACHE_DIR", "HAND1000_CACHE")}
    begun = time.perf_counter()
    done = subprocess.run(["make", "demo"], check=True, cwd=clone, env=variables, capture_output=True, text=True)
    return time.perf_counter() - begun, done.stdout + done.stderr


def _list_artifacts(clone: Path) -> list[tuple[str, int]]:
    paths = sorted((clone / "artifacts/artifacts").rglob("*"))
    return [(str(path), path.stat().st_mtime_ns) for path in paths if path.is_file()]
