"""The rows of the fault suite, and the workers that measure them."""

import random
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.faults import checks, remote
from tests.faults.cells import NOTHING, Trial, Undisturbed, fresh_folder, measure_undisturbed
from tests.faults.faults import LOCAL
from tests.faults.forks import Child
from tests.faults.recording import WHOLE, Stage
from tests.faults.results import Results, Row

FAULTS = LOCAL | remote.ON_S3 | remote.ON_SERVER
"""All faults, each with its number of trials for each stage."""

WAITING = {"MLflow gone for a minute": ("start_run", "train_unet", "register")}
"""Faults that take long, with the only stages that they are tried on."""

ON_WHOLE = {"SIGKILL": 3, "SIGTERM": 1, "disk full": 1, "two processes": 1, "damaged result": 4}
"""Faults that are tried on the whole workflow, each with its number of trials."""


@dataclass(frozen=True)
class Options:
    """What a worker measures.

    Attributes:
        folder: Folder of the results and of all trials.
        seed: Seed of all random choices.
        commit: State of the sources.
        trials: Most trials for each row; 0 does not limit them.
        trial: The only trial of each row, whose files are kept.
        chosen: Number of trials by the name of a row; if empty, all trials of all rows.
    """

    folder: Path
    seed: int
    commit: str
    trials: int = 0
    trial: int | None = None
    chosen: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Worker:
    """Measures rows, one trial after another."""

    options: Options
    number: int
    stages: dict[str, Stage]
    servers: remote.Servers | None = None
    _undisturbed: dict[tuple[str, str], Undisturbed] = field(default_factory=dict)
    _stored: dict[str, str] | None = None

    @property
    def folder(self) -> Path:
        """The folder of this worker."""
        return self.options.folder / f"worker{self.number}"

    def make_trial(self, stage: Stage, fault: str, name: str, undisturbed: Undisturbed, folder: Path) -> Trial:
        """Return a fresh trial of the kind that the fault needs."""
        source = random.Random(f"{self.options.seed}/{stage.name}/{fault}/{name}")
        fields: dict[str, Any] = {
            "stage": stage, "folder": folder, "random": source, "undisturbed": undisturbed,
            "shared": self.options.folder,
        }  # fmt: skip
        if fault in LOCAL:
            return Trial(**fields)
        assert self.servers is not None
        if fault in remote.ON_S3:
            return remote.S3Trial(**fields, servers=self.servers, expected=self.stored())
        # The server is the same for all rows, and the stages of one run have the same key.
        suffix = "-".join((str(self.options.seed), str(self.number), stage.name, fault.replace(" ", "-"), name))
        return remote.ServerTrial(**fields, servers=self.servers, suffix=f"-{suffix}")

    def stored(self) -> dict[str, str]:
        """Return the files of the finished run on S3, which the first call uploads."""
        if self._stored is None:
            assert self.servers is not None
            last, servers = self.stages[WHOLE].after, self.servers
            self.folder.mkdir(parents=True, exist_ok=True)
            variables = {**servers.s3_variables}
            ending = Child(lambda: remote.upload(last, servers), self.folder, environment=variables).wait()
            if ending.status:
                raise SystemExit(f"tests.faults: the finished run cannot be stored on S3: {ending.log[-1000:]}")
            self._stored = remote.stored_files(checks.list_files(last))
        return self._stored

    def undisturbed(self, stage: Stage, fault: str) -> Undisturbed:
        """Return what the stage leaves without a fault."""
        if (stage.name, "") not in self._undisturbed:
            with fresh_folder(self.folder / "undisturbed") as folder:
                trial = self.make_trial(stage, next(iter(LOCAL)), "undisturbed", NOTHING, folder / "trial")
                measured = measure_undisturbed(trial, lambda trial: checks.read_records(trial.root / "mlflow.db"))
            self._undisturbed[stage.name, ""] = measured
        if fault in remote.ON_SERVER and (stage.name, "server") not in self._undisturbed:
            with fresh_folder(self.folder / "undisturbed") as folder:
                trial = self.make_trial(stage, fault, f"undisturbed-{stage.name}", NOTHING, folder / "trial")
                measured = measure_undisturbed(trial, _server_records)
            plain = self._undisturbed[stage.name, ""]
            self._undisturbed[stage.name, "server"] = replace(measured, files=plain.files)
        return self._undisturbed[stage.name, "server" if fault in remote.ON_SERVER else ""]

    def measure(self, stage: Stage, fault: str) -> Row:
        """Run all trials of a row."""
        function, count = FAULTS[fault]
        if stage.name == WHOLE:
            count = ON_WHOLE[fault]
        started, details, counts = time.monotonic(), {}, [0, 0, 0, 0]
        count = self.options.chosen.get(f"{fault}/{stage.name}", count)
        numbers = range(min(count, self.options.trials or count))
        if self.options.trial is not None:
            numbers = range(self.options.trial, self.options.trial + 1)
        undisturbed = self.undisturbed(stage, fault)
        for number in numbers:
            folder = self.folder / "trial"
            shutil.rmtree(folder, ignore_errors=True)
            trial = self.make_trial(stage, fault, str(number), undisturbed, folder)
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
        options = self.options
        return Row(stage.name, fault, len(numbers), *counts, options.seed, seconds, options.commit, details)

    def work(self, rows: Sequence[tuple[str, Stage]]) -> None:
        """Measure rows that no other worker has claimed."""
        results = Results(self.options.folder)
        for fault, stage in rows:
            if not results.claim(f"{fault}/{stage.name}"):
                continue
            row = self.measure(stage, fault)
            results.add(row)
            print(
                f"{fault:24} {stage.name:24} {row.trials:3} trials {row.seconds:6.0f} s  {row.describe()}", flush=True
            )
            for number, lines in row.details.items():
                print(f"    trial {number}: " + "\n        ".join(lines), flush=True)


def select_rows(stages: dict[str, Stage], matches: Callable[[str], bool]) -> list[tuple[str, Stage]]:
    """Return the rows whose name FAULT/STAGE matches."""
    return [
        (fault, stage)
        for fault in FAULTS
        for stage in stages.values()
        if stage.name in WAITING.get(fault, (stage.name,)) and matches(f"{fault}/{stage.name}")
        if stage.name != WHOLE or fault in ON_WHOLE
    ]


def _server_records(trial: Trial) -> checks.Records:
    assert isinstance(trial, remote.ServerTrial)
    return checks.read_records(trial.servers.database, trial.run_key)
