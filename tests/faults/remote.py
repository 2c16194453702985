"""Trials with the artifact root on a real S3 server, or with a real MLflow server, behind a proxy that fails."""

import contextlib
import hashlib
import json
import shutil
import signal
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hand1000.registry.versions import MODEL_DIGEST, RUN_KEY
from tests.faults import checks
from tests.faults.cells import REFUSED, Trial
from tests.faults.forks import Child
from tests.faults.interposer import Injection, kill_at
from tests.faults.proxy import Mode, Proxy
from tests.faults.recording import Stage, link_tree, run_stage
from tests.support.s3_server import BUCKET

MINUTE = 60.0
_STORED = ("artifacts/", "results/", "provenance/", "checkpoints/")


@dataclass(frozen=True)
class Servers:
    """The servers of a worker: proxies, the variables of clients that go to S3 directly, and MLflow's database."""

    s3: Proxy
    s3_variables: Mapping[str, str]
    mlflow: Proxy
    database: Path
    number: int

    @property
    def root(self) -> str:
        """The artifact root of this worker on S3."""
        return f"s3://{BUCKET}/worker{self.number}/root"


def upload(root: Path, servers: Servers) -> None:
    """Store the finished run on S3; runs in a child."""
    from hand1000.storage.s3 import S3Backend

    backend = S3Backend(servers.root)
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_file() and name.startswith(_STORED):
            backend.write(name, path.read_bytes())


@dataclass(kw_only=True)
class S3Trial(Trial):
    """One stage on the finished run's root on S3, from which what the stage has made is removed first."""

    servers: Servers
    expected: Mapping[str, str]

    @cached_property
    def root(self) -> Path:
        """The folder of MLflow's files; the artifacts are on S3."""
        root = self.folder / "root"
        root.mkdir()
        for name in ("mlflow.db", "mlartifacts"):
            source = self.stage.before / name
            if source.is_dir():
                link_tree(source, root / name)
            elif source.exists():
                shutil.copyfile(source, root / name)
        return root

    def start(
        self,
        injection: Injection | None = None,
        *,
        memory: int = 0,
        function: Callable[[], None] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Child:
        """Start a run of the stage; only the first removes what the stage had made."""
        first = not (self.folder / "started").exists()
        (self.folder / "started").touch()
        stage, servers, direct = self.stage, self.servers, self.servers.s3_variables["AWS_ENDPOINT_URL_S3"]

        def run() -> None:
            import os

            if first:
                os.environ["AWS_ENDPOINT_URL_S3"] = direct
                _remove_outputs(stage, servers.root)
                os.environ["AWS_ENDPOINT_URL_S3"] = servers.s3.url
            run_stage(stage, servers.root)

        variables = {
            **servers.s3_variables,
            "AWS_ENDPOINT_URL_S3": servers.s3.url,
            "AWS_MAX_ATTEMPTS": "8",
            "MLFLOW_TRACKING_URI": f"sqlite:///{self.root}/mlflow.db",
        }
        return super().start(
            injection, memory=memory, function=function or run, environment=variables | dict(environment or {})
        )

    def finish(self) -> None:
        """Run the stage again without a fault and check what it leaves."""
        self.servers.s3.set(Mode())
        super().finish()

    def check(self) -> None:
        """Compare bucket, temporary folders and MLflow with those of the undisturbed stage."""
        stage, root, out = self.stage, self.servers.root, self.folder / "listing.json"
        direct = {**self.servers.s3_variables, "MLFLOW_TRACKING_URI": ""}
        ending = Child(lambda: _list_objects(stage, root, out), self.folder, environment=direct).wait()
        if ending.status:
            self.findings.bits.append(f"the bucket cannot be listed: {ending.log[-300:]}")
            return
        actual = json.loads(out.read_text())
        expected = {name: digest if name in actual and actual[name] else "" for name, digest in self.expected.items()}
        checks.compare_files(actual, expected, self.findings)
        for name in ("tmp", "home"):
            checks.compare_folder_empty(self.folder / name, self.findings)
        checks.compare_records(checks.read_records(self.root / "mlflow.db"), self.undisturbed.records, self.findings)


def stored_files(files: Mapping[str, str]) -> dict[str, str]:
    """Return the files of a root that are also on S3."""
    return {name: digest for name, digest in files.items() if name.startswith(_STORED)}


def _remove_outputs(stage: Stage, root: str) -> None:
    from hand1000.storage.s3 import S3Backend

    backend = S3Backend(root)
    for folder in _STORED:
        for file in list(backend.list_files(f"{folder}{stage.name}")):
            backend.remove(file.key)


def _list_objects(stage: Stage, root: str, out: Path) -> None:
    from hand1000.storage.s3 import S3Backend

    backend, files = S3Backend(root), {}
    for name in backend.file_sizes(""):
        own = name.startswith(f"artifacts/{stage.name}/") and stage.name != "register"
        data = backend.read(name) if own else None
        files[checks.without_random_names(name)] = hashlib.sha256(data).hexdigest() if data is not None else ""
    out.write_text(json.dumps(files))


def _hide_earlier_trials(database: Path) -> None:
    """Hide the runs of earlier trials and their models, whose weights are the same and would not be registered again.

    A stage that creates the run gives it the same key in each trial.
    """
    with contextlib.closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        for table, key, value in (
            ("model_version_tags", "key", "value"),
            ("logged_model_tags", "tag_key", "tag_value"),
        ):
            connection.execute(f"UPDATE {table} SET {value} = 'hidden' WHERE {key} = ?", (MODEL_DIGEST,))
        connection.execute("UPDATE tags SET value = 'hidden' WHERE key = ?", (RUN_KEY,))
        connection.execute("UPDATE runs SET lifecycle_stage = 'deleted'")


@dataclass(kw_only=True)
class ServerTrial(Trial):
    """One stage with a root in a folder and a real MLflow server, in a run of its own."""

    servers: Servers
    suffix: str

    @cached_property
    def root(self) -> Path:
        """The root as it was before the stage, without the embedded MLflow."""
        root = self.folder / "root"
        link_tree(self.stage.before, root)
        for name in ("mlflow.db", "mlflow.lock", "mlflow.recorded.json"):
            (root / name).unlink(missing_ok=True)
        shutil.rmtree(root / "mlartifacts", ignore_errors=True)
        _hide_earlier_trials(self.servers.database)
        return root

    @property
    def run_key(self) -> str:
        """The key of the run of this trial."""
        run = self.stage.inputs.get("run")
        return f"{run.run_id}{self.suffix}" if run else ""

    def start(
        self,
        injection: Injection | None = None,
        *,
        memory: int = 0,
        function: Callable[[], None] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Child:
        """Start a run of the stage."""
        stage, root, suffix = self.stage, self.root, self.suffix
        return super().start(
            injection,
            memory=memory,
            function=function or (lambda: run_stage(stage, root, suffix)),
            environment={"MLFLOW_TRACKING_URI": self.servers.mlflow.url, **dict(environment or {})},
        )

    def finish(self) -> None:
        """Run the stage again without a fault and check what it leaves."""
        self.servers.mlflow.set(Mode())
        super().finish()

    def check(self) -> None:
        """Compare root, temporary folders and MLflow with those of the undisturbed stage."""
        files = {name: digest for name, digest in self.undisturbed.files.items() if not name.startswith("mlartifacts/")}
        checks.compare_files(checks.list_files(self.root), files, self.findings)
        for name in ("tmp", "home"):
            checks.compare_folder_empty(self.folder / name, self.findings)
        records = checks.read_records(self.servers.database, self.run_key)
        checks.compare_records(records, self.undisturbed.records, self.findings)


def _fail_s3(mode: Mode, *statuses: int, attempts: str = "8") -> Callable[[Trial], None]:
    def disturb(trial: Trial) -> None:
        assert isinstance(trial, S3Trial)
        after = trial.random.randint(1, 40) if mode.after else 0
        trial.servers.s3.set(Mode(mode.fault, after, mode.seconds, mode.share, trial.random.randrange(2**31)))
        trial.disturb(trial.start(environment={"AWS_MAX_ATTEMPTS": attempts}).wait(), *statuses)
        trial.finish()

    return disturb


def _fail_mlflow(mode: Mode, *statuses: int) -> Callable[[Trial], None]:
    def disturb(trial: Trial) -> None:
        assert isinstance(trial, ServerTrial)
        after = trial.random.randint(1, 12) if mode.after else 0
        trial.servers.mlflow.set(Mode(mode.fault, after, mode.seconds, mode.share, trial.random.randrange(2**31)))
        trial.disturb(trial.start().wait(), *statuses)
        trial.finish()

    return disturb


def _kill_on_s3(trial: Trial) -> None:
    trial.start().wait(kill_after=max(0.05, trial.random.uniform(0, 1.5 * trial.undisturbed.seconds)))
    trial.finish()


def _kill_with_server(trial: Trial) -> None:
    trial.start(kill_at(trial.operation(), signal.SIGKILL)).wait(
        kill_after=max(0.05, trial.random.uniform(0, 1.5 * trial.undisturbed.seconds))
    )
    trial.finish()


ON_S3: dict[str, tuple[Callable[[Trial], None], int]] = {
    "S3 SIGKILL": (_kill_on_s3, 4),
    "S3 gone": (_fail_s3(Mode("gone", 1), 0, REFUSED, attempts="2"), 2),
    "S3 gone for 3 s": (_fail_s3(Mode("gone", 1, 3.0), 0), 1),
    "S3 slow": (_fail_s3(Mode("slow", share=0.3), 0), 1),
    "S3 cutting": (_fail_s3(Mode("cutting", share=0.1), 0), 2),
    "S3 5xx": (_fail_s3(Mode("errors", share=0.1), 0), 1),
    "S3 stale listing": (_fail_s3(Mode("stale"), 0, REFUSED), 1),
    "S3 revoked": (_fail_s3(Mode("revoked", 1), 0, REFUSED), 2),
    "S3 read-only": (_fail_s3(Mode("read-only", 1), 0, REFUSED), 2),
}
"""Faults of the S3 server, each with its number of trials for each stage."""

ON_SERVER: dict[str, tuple[Callable[[Trial], None], int]] = {
    "MLflow SIGKILL": (_kill_with_server, 4),
    "MLflow gone": (_fail_mlflow(Mode("gone", 1), 0, REFUSED), 1),
    "MLflow gone for a minute": (_fail_mlflow(Mode("gone", 1, MINUTE), 0, REFUSED), 1),
    "MLflow 5xx": (_fail_mlflow(Mode("errors", share=0.1), 0), 1),
}
"""Faults of the MLflow server."""
