"""Measure the product beside its peers, and print each row with its goal.

    .venv/bin/python -m benchmarks.bench [--only MODULE ...] [--short] [--minutes 40] [--peers FOLDER] [--before FOLDER]

Each module of MODULES runs in a process of its own and measures both sides of a row in turn. A ratio above 1 means
that the product needs less than the peer. Exits with 1 if the results of a row differ or a module fails.
"""

import argparse
import importlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.rows import BenchOptions, Row

# Modules of `benchmarks` with a function `measure_rows(options)`.
MODULES: tuple[str, ...] = ()
_HEADER = "| work | peer | product | peer's | product ahead | goal | met | equal |\n" + "| --- " * 8 + "|"


def format_rows(rows: Sequence[Row]) -> str:
    """Return the rows as a table in Markdown: medians, with the least and the largest measurement in parentheses."""
    return "\n".join([_HEADER, *(format_row(row) for row in rows)])


def format_row(row: Row) -> str:
    """Return one line of the table."""
    goals = [f"{row.goal:g}x"] if row.goal is not None else []
    goals += [f"at most {row.limit:g} {row.unit}"] if row.limit is not None else []
    words = {True: "yes", False: "**no**", None: "-"}
    cells = [
        row.name,
        row.peer,
        _format_values(row.product, row.unit),
        _format_values(row.peer_values, row.unit),
        f"{row.ratio:.2f}x",
        ", ".join(goals) or "-",
        words[row.met],
        words[row.equal],
    ]
    return f"| {' | '.join(cells)} |"


def _format_values(values: tuple[float, ...], unit: str) -> str:
    return f"{statistics.median(values):.3g} {unit} ({min(values):.3g} to {max(values):.3g}, {len(values)})"


def run_module(name: str, options: BenchOptions, timeout: float) -> Iterator[Row]:
    """Run the rows of a module in a process of its own, and yield each one as soon as it is measured.

    Raises:
        RuntimeError: If the process fails or exceeds `timeout` seconds, after the rows that it measured.
    """
    code = "import sys; from benchmarks.bench import print_rows; print_rows(*sys.argv[1:])"
    values = json.dumps(asdict(options), default=str)
    deadline = time.monotonic() + timeout
    command = ["timeout", "--kill-after=10", f"{max(timeout, 1):.0f}", sys.executable, "-c", code, name, values]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(_MARK):
                yield row_from_json(line.removeprefix(_MARK))
    if process.returncode:
        late = time.monotonic() >= deadline
        raise RuntimeError(f"{name}: {'out of time' if late else f'exit code {process.returncode}'}")


# Begins a line with a row on the standard output of a module, which may print other things.
_MARK = "row: "


def print_rows(name: str, values: str) -> None:
    """Print the rows of a module as JSON, for `run_module`."""
    options: dict[str, Any] = json.loads(values)
    options |= {key: options[key] and Path(options[key]) for key in ("peers", "before")}
    for row in importlib.import_module(f"benchmarks.{name}").measure_rows(BenchOptions(**options)):
        print(_MARK + json.dumps(asdict(row)), flush=True)


def row_from_json(text: str) -> Row:
    """Return the row that `print_rows` printed."""
    values = json.loads(text)
    return Row(**values | {side: tuple(values[side]) for side in ("product", "peer_values")})


def main() -> int:
    """Measure the rows and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=MODULES, action="append", metavar="MODULE", help=", ".join(MODULES))
    parser.add_argument("--short", action="store_true", help="least sizes, for equality")
    parser.add_argument("--minutes", type=float, default=40, help="time for all rows together")
    parser.add_argument("--seconds", type=float, default=60, help="time for the repetitions of one row")
    parser.add_argument("--peers", type=Path, help="folder with checkouts of the peers' repositories")
    parser.add_argument("--before", type=Path, help="checkout of a former build")
    arguments = parser.parse_args()
    options = BenchOptions(
        seconds=arguments.seconds, short=arguments.short, peers=arguments.peers, before=arguments.before
    )
    deadline = time.monotonic() + 60 * arguments.minutes
    failures, unequal = [], False
    print(_HEADER, flush=True)
    for name in arguments.only or MODULES:
        try:
            for row in run_module(name, options, deadline - time.monotonic()):
                print(format_row(row), flush=True)
                unequal |= row.equal is False
        except RuntimeError as error:
            failures.append(str(error))
    for failure in failures:
        print(failure, file=sys.stderr)
    return int(unequal or bool(failures))


if __name__ == "__main__":
    sys.exit(main())
