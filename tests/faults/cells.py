"""One trial of a fault: a stage on a fresh root, disturbed, run again, and compared with the undisturbed run."""

import contextlib
import random
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tests.faults import checks
from tests.faults.forks import Child, Ending
from tests.faults.interposer import Injection
from tests.faults.recording import Stage, link_tree, run_stage

REFUSED = 2
"""Exit status of a run that ends with one line."""
INTERRUPTED = {signal.SIGTERM: 128 + signal.SIGTERM, signal.SIGINT: 128 + signal.SIGINT}


@dataclass(frozen=True)
class Undisturbed:
    """The same stage without a fault: what it leaves, how long it takes, and how often it changes files."""

    files: Mapping[str, str]
    records: checks.Records
    seconds: float
    operations: int


@dataclass
class Trial:
    """One stage on one fresh root.

    Attributes:
        stage: The stage.
        folder: Empty folder of the trial.
        random: Source of its random choices.
        undisturbed: The stage without a fault.
        shared: Folder of caches that the trials share, because their content is not of this project.
        environment: Further variables of every run.
        findings: What was wrong.
        damaged: The file that the trial has damaged, and how.
    """

    stage: Stage
    folder: Path
    random: random.Random
    undisturbed: Undisturbed
    shared: Path
    environment: dict[str, str] = field(default_factory=dict)
    findings: checks.Findings = field(default_factory=checks.Findings)
    damaged: str = ""

    def __post_init__(self) -> None:
        for name in ("tmp", "home"):
            (self.folder / name).mkdir(parents=True)

    @cached_property
    def root(self) -> Path:
        """The root as it was before the stage."""
        link_tree(self.stage.before, self.folder / "root")
        return self.folder / "root"

    def start(
        self,
        injection: Injection | None = None,
        *,
        memory: int = 0,
        function: Callable[[], None] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Child:
        """Start a run of the stage."""
        root = self.root
        variables = {
            "TMPDIR": str(self.folder / "tmp"),
            "HOME": str(self.folder / "home"),
            "XDG_CACHE_HOME": "",
            "MLFLOW_TRACKING_URI": "",
            "HAND1000_CACHE": str(self.shared / "cache"),
            "MPLCONFIGDIR": str(self.shared / "matplotlib"),
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        return Child(
            function or (lambda: run_stage(self.stage, root)),
            self.folder,
            watched=[root, self.folder / "tmp", self.folder / "home"],
            injection=injection,
            environment=variables | self.environment | dict(environment or {}),
            memory=memory,
        )

    def disturb(self, ending: Ending, *statuses: int) -> Ending:
        """Check how a disturbed run ended: readably, and with one of these statuses if there are any."""
        if not ending.is_readable:
            cause = "hung" if ending.hung else last_lines(ending.log, 12)
            self.findings.endings.append(f"status {ending.status}: {cause}")
        elif statuses and ending.status not in statuses:
            self.findings.endings.append(f"status {ending.status} instead of {statuses}: {last_lines(ending.log, 3)}")
        return ending

    def finish(self) -> None:
        """Run the stage again and check what it leaves."""
        self.disturb(self.start().wait(), 0)
        self.check()

    def check(self) -> None:
        """Compare root, temporary folders and MLflow with those of the undisturbed stage."""
        checks.compare_files(checks.list_files(self.root), self.undisturbed.files, self.findings)
        for name in ("tmp", "home"):
            checks.compare_folder_empty(self.folder / name, self.findings)
        database = self.root / "mlflow.db"
        checks.compare_records(checks.read_records(database), self.undisturbed.records, self.findings)

    def operation(self) -> int:
        """Choose an operation of the undisturbed stage."""
        return self.random.randint(1, max(1, self.undisturbed.operations))


def last_lines(log: str, count: int) -> str:
    """Return the end of a log in one line."""
    return " | ".join(line for line in log.splitlines()[-count:] if line.strip())[-1500:]


NOTHING = Undisturbed({}, checks.Records(*(checks.Counter() for _ in range(5))), 0.0, 0)
"""What a trial that measures the undisturbed stage is compared with."""


def measure_undisturbed(trial: Trial, read_records: Callable[[Trial], checks.Records]) -> Undisturbed:
    """Run the stage of a fresh trial without a fault."""
    ending = trial.start().wait()
    if ending.status:
        raise SystemExit(f"tests.faults: {trial.stage.name}: fails without a fault: {last_lines(ending.log, 20)}")
    left = checks.Findings()
    for name in ("tmp", "home"):
        checks.compare_folder_empty(trial.folder / name, left)
    if left.left:
        raise SystemExit(f"tests.faults: {trial.stage.name}: leaves files without a fault: {left.left}")
    return Undisturbed(checks.list_files(trial.root), read_records(trial), ending.seconds, ending.operations)


@contextlib.contextmanager
def fresh_folder(folder: Path) -> Iterator[Path]:
    """Provide an empty folder and remove it afterwards."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
