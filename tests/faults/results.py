"""The results of the suite, kept by row, so that an interrupted run goes on, and the table that is made of them."""

import fcntl
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.support.short_demo import ROOT

PAGE = ROOT / "docs/reliability.md"
BEGIN, END = "<!-- made by make faults: begin -->", "<!-- end -->"


@dataclass(frozen=True)
class Row:
    """What the trials of one stage and fault showed.

    Attributes:
        stage: Name of the task.
        fault: Name of the fault.
        trials: Number of trials.
        same_bits: Trials whose rerun ended in the bits of the undisturbed run.
        nothing_left: Trials that left no file behind.
        no_duplicate: Trials after which MLflow holds each record once.
        readable: Trials whose disturbed run ended by the signal, with one line or with success.
        seed: Seed of the trials.
        seconds: Duration of all trials.
        commit: State of the sources.
        details: What was wrong, by trial.
    """

    stage: str
    fault: str
    trials: int
    same_bits: int
    nothing_left: int
    no_duplicate: int
    readable: int
    seed: int
    seconds: float
    commit: str
    details: Mapping[str, list[str]]

    @property
    def is_perfect(self) -> bool:
        """Whether nothing was wrong."""
        return self.trials == self.same_bits == self.nothing_left == self.no_duplicate == self.readable

    def describe(self) -> str:
        """Return the counts in one line."""
        if self.is_perfect:
            return "ok"
        counts = f"bits {self.same_bits}, nothing left {self.nothing_left}, no duplicate {self.no_duplicate}"
        return f"{counts}, readable end {self.readable} of {self.trials}"


def current_commit() -> str:
    """Return the commit of the working tree, with a plus sign if it has changes."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    changed = git("status", "--porcelain", "--", "hand1000", "tasks", "workflows")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


class Results:
    """The rows in a file that several workers extend."""

    def __init__(self, folder: Path) -> None:
        self.path, self._claims = folder / "rows.jsonl", folder / "claims"
        folder.mkdir(parents=True, exist_ok=True)

    def load(self) -> dict[tuple[str, str], Row]:
        """Return the last row of each stage and fault."""
        if not self.path.exists():
            return {}
        rows = (Row(**json.loads(line)) for line in self.path.read_text().splitlines())
        return {(row.stage, row.fault): row for row in rows}

    def add(self, row: Row) -> None:
        """Keep a row."""
        with self._lock(), open(self.path, "a") as file:
            file.write(json.dumps(asdict(row)) + "\n")

    def start_claims(self) -> None:
        """Forget which rows are being worked on."""
        self._claims.write_text("")

    def claim(self, name: str) -> bool:
        """Return whether this worker is the first that asks for the row `name`."""
        with self._lock():
            claimed = self._claims.read_text().splitlines()
            if name in claimed:
                return False
            with open(self._claims, "a") as file:
                file.write(f"{name}\n")
            return True

    @contextmanager
    def _lock(self) -> Iterator[None]:
        descriptor = os.open(self.path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def write_page(rows: Mapping[tuple[str, str], Row], stages: list[str], faults: list[str], seed: int) -> None:
    """Put the table into docs/reliability.md."""
    ordered = [rows[stage, fault] for fault in faults for stage in stages if (stage, fault) in rows]
    commits = sorted({row.commit for row in ordered})
    total, minutes = sum(row.trials for row in ordered), sum(row.seconds for row in ordered) / 60
    perfect = sum(row.is_perfect for row in ordered)
    lines = [
        BEGIN,
        "",
        f"Made by `make faults` with seed {seed} at commit {', '.join(commits)}: {total} trials in {len(ordered)} "
        f"rows, of which {perfect} are without a finding; {minutes:.0f} minutes of one core.",
        "",
        "| fault | stage | runs | same bits | nothing left | no duplicate in MLflow | readable end | commit |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in ordered:
        counts = (row.same_bits, row.nothing_left, row.no_duplicate, row.readable)
        shares = " | ".join(f"{100 * count // row.trials} %" for count in counts)
        lines.append(f"| {row.fault} | `{row.stage}` | {row.trials} | {shares} | {row.commit} |")
    text = PAGE.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    PAGE.write_text(before + "\n".join([*lines, "", END]) + after)
