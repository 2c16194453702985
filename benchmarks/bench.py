"""Measure the product beside its peers, print each row with its goal, and write docs/performance.md: `make bench`.

    .venv/bin/python -m benchmarks.bench [--only MODULE ...] [--short] [--minutes 40] [--peers FOLDER] [--before FOLDER]

Each module of `benchmarks.plan` runs in a process of its own and measures both sides of a row in turn. A ratio above 1
means that the product needs less than the peer. The plan with its minutes is printed first. A row that fails is
printed as failed, and the others are measured. Measurements are kept in `--folder`: `--only` renews a part of the page,
and a call after one that was ended, or in which a part failed, goes on with what is missing. Exits with 1 if the
results of a row differ or a row fails.
"""

import argparse
import contextlib
import importlib
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import Any

from benchmarks.plan import (
    GROWTH,
    MODULES,
    choose_seconds,
    describe_plan,
    estimate_parts,
    read_done,
    write_done,
)
from benchmarks.rows import BenchOptions, Row, failed_row

FOLDER = Path(__file__).with_name("measured")
_HEADER = "| work | peer | product | peer's | product ahead | goal | met | equal |\n" + "| --- " * 8 + "|"


def format_rows(rows: Sequence[Row]) -> str:
    """Return the rows as a table in Markdown: medians, with the least and the largest measurement in parentheses."""
    return "\n".join([_HEADER, *(format_row(row) for row in rows)])


def format_row(row: Row) -> str:
    """Return one line of the table."""
    if row.failure:
        return f"| {row.name} | {row.peer} | **failed**: {row.failure} | - | - | - | **no** | - |"
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
    text = f"{statistics.median(values):.3g} {unit}"
    return text if len(values) == 1 else f"{text} ({min(values):.3g} to {max(values):.3g}, {len(values)})"


def run_module(name: str, options: BenchOptions, timeout: float) -> Iterator[Row]:
    """Run the rows of a module in a process of its own, and yield each one as soon as it is measured.

    Raises:
        RuntimeError: If the process fails or exceeds `timeout` seconds, after the rows that it measured.
    """
    code = "import sys; from benchmarks.bench import print_rows; print_rows(*sys.argv[1:])"
    values = json.dumps(asdict(options), default=str)
    command = [sys.executable, "-c", code, name, values]
    # In a session of its own, which is ended with all servers and processes that the module has started.
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        late: list[bool] = []

        def end() -> None:
            late.append(True)
            os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(max(timeout, 1), end)
        timer.start()
        try:
            for line in process.stdout:
                if line.startswith(_MARK):
                    yield row_from_json(line.removeprefix(_MARK))
            process.wait()
        finally:
            timer.cancel()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
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


def load_rows(folder: Path) -> dict[str, list[Row]]:
    """Return the rows that were measured before, by module."""
    files = {name: folder / f"{name}.json" for name in MODULES}
    return {
        name: [row_from_json(json.dumps(row)) for row in json.loads(file.read_text())["rows"]]
        for name, file in files.items()
        if file.is_file()
    }


def main() -> int:
    """Measure the rows and print the table."""
    arguments = parse_arguments()
    started = monotonic()
    done = [] if arguments.only or arguments.short else read_done()
    names = [name for name in arguments.only or [*MODULES, GROWTH] if name not in done]
    if arguments.short:
        names = [name for name in names if name != GROWTH]
    before = arguments.before is not None
    available = 60 * arguments.minutes
    seconds = arguments.seconds or choose_seconds(names, arguments.items, available, before=before)
    estimates = estimate_parts(names, arguments.items, seconds, before=before)
    if done:
        print(f"measured before: {', '.join(done)}", file=sys.stderr)
    if not arguments.short:
        print(describe_plan(estimates, seconds), file=sys.stderr, flush=True)
    options = BenchOptions(seconds=seconds, short=arguments.short, peers=arguments.peers, before=arguments.before)
    print(_HEADER, flush=True)
    faults: list[str] = []
    for name in names:
        left = 60 * arguments.minutes - (monotonic() - started)
        print(f"{name}, after {(monotonic() - started) / 60:.1f} minutes", file=sys.stderr, flush=True)
        if name == GROWTH:
            found = _measure_growth(arguments.folder, arguments.items, left)
        else:
            # A part that hangs leaves time to the others.
            found = _measure_module(name, options, min(left, 2 * estimates[name] + 60), arguments.folder)
        faults += found
        if not (found or arguments.only or arguments.short):
            done.append(name)
            write_done(done)
    if not (faults or arguments.only or arguments.short):
        write_done([])
    if not arguments.short:
        from benchmarks.performance_page import write_page

        write_page(arguments.page, load_rows(arguments.folder), arguments.folder)
    for fault in faults:
        print(fault, file=sys.stderr)
    return int(bool(faults))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = (*MODULES, GROWTH)
    parser.add_argument("--only", choices=names, action="append", metavar="MODULE", help=", ".join(names))
    parser.add_argument("--short", action="store_true", help="least sizes, for equality; writes nothing")
    parser.add_argument("--minutes", type=float, default=40, help="time for everything (40)")
    parser.add_argument("--seconds", type=float, help="time for the repetitions of one row (default: what fits)")
    parser.add_argument("--items", type=int, default=10_000, help="largest number of images in the plot of growth")
    parser.add_argument("--peers", type=Path, help="folder with checkouts of the peers' repositories")
    parser.add_argument("--before", type=Path, help="checkout of a former build")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="folder of the measurements (benchmarks/measured)")
    parser.add_argument("--page", type=Path, default=FOLDER.parents[1] / "docs/performance.md", help="the page")
    return parser.parse_args()


def _measure_module(name: str, options: BenchOptions, timeout: float, folder: Path) -> list[str]:
    """Print the rows of a module as they are measured, keep them in `folder`, and return what went wrong."""
    rows: list[Row] = []

    def add(row: Row) -> None:
        rows.append(row)
        print(format_row(row), flush=True)
        if row.note and row.met is False:
            print(f"\n{row.name}, {row.peer}: {row.note}\n", flush=True)
        if not options.short:
            _save(folder / f"{name}.json", {"rows": [asdict(row) for row in rows]})

    try:
        for row in run_module(name, options, timeout):
            add(row)
    except RuntimeError as error:
        add(failed_row(f"further rows of {name}", "-", str(error)))
    faults = [f"{row.name}, {row.peer}: {row.failure}" for row in rows if row.failure]
    return faults + [f"{row.name}, {row.peer}: other results" for row in rows if row.equal is False]


def _save(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value | {"machine": describe_machine()}, indent=1))


def describe_machine() -> str:
    """Return the processor, the number of threads, the memory and the versions that a measurement depends on."""
    import platform
    import re
    from importlib.metadata import version

    information = Path("/proc/cpuinfo")
    text = information.read_text() if information.is_file() else ""
    match = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    processor = match[1] if match else platform.processor()
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "transformers"))
    return f"{processor}, {os.cpu_count()} threads, {memory:.0f} GB; Python {platform.python_version()}, {libraries}"


def _measure_growth(folder: Path, items: int, seconds: float) -> list[str]:
    """Measure the growth in a process of its own; return what went wrong. What it has measured stays in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "benchmarks.growth", "--items", str(items), "--minutes", f"{seconds / 60:.2f}"]
    command += ["--out", str(folder / "growth.json")]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=max(seconds, 0) + 120)
    except subprocess.TimeoutExpired:
        return ["growth: out of time"]
    lines = done.stdout.splitlines()
    print("\n".join(line for line in lines if line.startswith("|")), flush=True)
    faults = [f"growth: {line}" for line in lines if line.startswith("grows too fast")]
    return [f"growth: exit code {done.returncode}"] if done.returncode else faults


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
