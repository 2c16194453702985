"""The fault suite: `python -m tests.faults`.

Each stage of the short demo is disturbed by each fault, run again, and compared with the undisturbed run. A row that
was measured at the same commit is kept, so that an interrupted run goes on. At the end the command writes the table of
docs/reliability.md and fails if a row is short of 100 %.
"""

import argparse
import fnmatch
import os
import random
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.faults import interposer
from tests.faults.cells import Trial, Undisturbed, fresh_folder, measure_undisturbed
from tests.faults.faults import LOCAL
from tests.faults.forks import Child, import_all
from tests.faults.recording import Stage, load_stages, loaded_modules, record
from tests.faults.results import Results, Row, current_commit, write_page
from tests.support.short_demo import ROOT

FOLDER = ROOT / "build/faults"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="seed of all random choices")
    parser.add_argument("--jobs", type=int, default=2, help="number of trials at the same time")
    parser.add_argument("--rows", default="*/*", help="only the rows FAULT/STAGE that match this pattern")
    parser.add_argument("--trials", type=int, default=0, help="at most this many trials for each row")
    parser.add_argument("--trial", type=int, help="only the trial with this number of each row, whose files are kept")
    parser.add_argument("--again", action="store_true", help="also measure rows that this commit has already")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="folder of the results and of all trials")
    parser.add_argument("--no-page", action="store_true", help="do not write docs/reliability.md")
    return parser.parse_args(arguments)


def prepare(folder: Path, commit: str) -> dict[str, Stage]:
    """Record the undisturbed run, unless this commit's was, and import what it imports."""
    recorded = folder / "recorded"
    marker = recorded / "commit"
    if not marker.exists() or marker.read_text() != commit or commit.endswith("+"):
        shutil.rmtree(recorded, ignore_errors=True)
        shutil.rmtree(folder / "undisturbed", ignore_errors=True)
        recorded.mkdir(parents=True)
        print("recording the undisturbed run", flush=True)
        shared = {"HAND1000_CACHE": str(folder / "cache"), "MPLCONFIGDIR": str(folder / "matplotlib")}
        ending = Child(lambda: record(recorded), recorded, environment=shared | {"MLFLOW_TRACKING_URI": ""}).wait(
            deadline=600
        )
        if ending.status:
            raise SystemExit(f"tests.faults: the undisturbed run failed:\n{ending.log}")
        marker.write_text(commit)
    import_all(loaded_modules(recorded))
    return load_stages(recorded)


class Worker:
    """Measures rows, one trial after another."""

    def __init__(self, options: argparse.Namespace, number: int, commit: str) -> None:
        self.options, self.commit = options, commit
        self.folder: Path = options.folder / f"worker{number}"
        self.results = Results(options.folder)
        self._undisturbed: dict[str, Undisturbed] = {}

    def undisturbed(self, stage: Stage) -> Undisturbed:
        """Return what the stage leaves without a fault."""
        if stage.name not in self._undisturbed:
            with fresh_folder(self.folder / "undisturbed") as folder:
                self._undisturbed[stage.name] = measure_undisturbed(stage, folder, self.options.folder)
        return self._undisturbed[stage.name]

    def measure(self, stage: Stage, fault: str) -> Row:
        """Run all trials of a row."""
        function, count = LOCAL[fault]
        started, details, counts = time.monotonic(), {}, [0, 0, 0, 0]
        numbers = range(min(count, self.options.trials or count))
        if self.options.trial is not None:
            numbers = range(self.options.trial, self.options.trial + 1)
        undisturbed = self.undisturbed(stage)
        for number in numbers:
            folder = self.folder / "trial"
            shutil.rmtree(folder, ignore_errors=True)
            source = random.Random(f"{self.options.seed}/{stage.name}/{fault}/{number}")
            trial = Trial(stage, folder, source, undisturbed, self.options.folder)
            function(trial)
            found = trial.findings
            kinds = (found.bits, found.left, found.duplicates, found.endings)
            counts = [total + (not kind) for total, kind in zip(counts, kinds, strict=True)]
            if any(kinds):
                lines = [line for kind in kinds for line in kind[:6]]
                details[str(number)] = [*lines, trial.damaged] if trial.damaged else lines
        if self.options.trial is None:
            shutil.rmtree(self.folder / "trial", ignore_errors=True)
        seconds = round(time.monotonic() - started, 1)
        return Row(stage.name, fault, len(numbers), *counts, self.options.seed, seconds, self.commit, details)

    def work(self, rows: Sequence[tuple[str, Stage]]) -> None:
        """Measure rows that no other worker has claimed."""
        for fault, stage in rows:
            if not self.results.claim(f"{fault}/{stage.name}"):
                continue
            row = self.measure(stage, fault)
            self.results.add(row)
            state = row.describe()
            print(f"{fault:20} {stage.name:24} {row.trials:3} trials {row.seconds:6.0f} s  {state}", flush=True)
            for number, lines in row.details.items():
                print(f"    trial {number}: " + "\n        ".join(lines), flush=True)


def main(arguments: Sequence[str]) -> int:
    """Run the suite; return the exit status."""
    options = parse(arguments)
    interposer.reexecute(options.folder, "tests.faults")
    commit = current_commit()
    stages = prepare(options.folder, commit)
    results = Results(options.folder)
    known = results.load()
    rows = [
        (fault, stage)
        for fault in LOCAL
        for stage in stages.values()
        if fnmatch.fnmatch(f"{fault}/{stage.name}", options.rows)
    ]
    missing = [
        (fault, stage)
        for fault, stage in rows
        if options.again or (stage.name, fault) not in known or known[stage.name, fault].commit != commit
    ]
    results.start_claims()
    children = []
    for number in range(options.jobs):
        process = os.fork()
        if process == 0:
            Worker(options, number, commit).work(missing)
            os._exit(0)
        children.append(process)
    failed = [os.waitpid(process, 0)[1] for process in children]
    known = results.load()
    if not options.no_page:
        write_page(known, list(stages), list(LOCAL), options.seed)
    short = [key for key, row in known.items() if not row.is_perfect]
    return 1 if any(failed) or short else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
