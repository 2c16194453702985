"""Fifty scheduled retrainings in a row on a root, with faults, reviews and retention; nothing may grow.

    .venv/bin/python -m benchmarks.soak [--runs 50] [--seed 1] [--out docs]

Each run is a process of its own, as on a schedule, forked from one that has imported everything. Every fourth run finds
other images. One operation in a hundred of those on the artifact store, and of those that write to MLflow, fails or
kills the process, before or after its work, and the run is started again until it ends. Each new candidate is promoted
or rejected, and `hand1000 gc` removes what nobody needs. After each run the script measures root, temporary folder,
processes, open files, memory and MLflow's rows. It writes `soak.md` and `soak.png`, and fails if a measurement of the
last runs exceeds that of earlier ones. It takes about 20 minutes on one core.
"""

import argparse
import contextlib
import datetime
import functools
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
MARK = "HAND1000_SOAK"
"""Environment variable by which all processes of a soak are found."""

FAULT_SHARE = 0.01
CHANGE_EVERY = 4
MAX_ATTEMPTS = 40
POOL, TRAIN, TEST = 24, 8, 4
STORE_METHODS = ("publish", "fetch", "put_result", "get_result")
CLIENT_METHODS = (
    "create_run", "log_batch", "log_inputs", "log_artifact", "log_outputs", "set_terminated", "update_run",
    "create_model_version", "set_model_version_tag", "create_logged_model", "log_model_artifacts",
    "finalize_logged_model",
)  # fmt: skip

SHORT: dict[str, Any] = {
    "data.test_images": TEST,
    "stage2.fusion_steps": 4,
    "stage2.fusion_batch_size": 4,
    "stage2.embedding_steps": 2,
    "stage2.embedding_batch_size": 2,
    "stage2.checkpoint_every": 2,
    "stage3.steps": 8,
    "stage3.batch_size": 4,
    "stage3.checkpoint_every": 2,
    "generation.num_inference_steps": 2,
    "generation.batch_size": 2,
    "generation.num_images": 6,
    "evaluation.general_images": 4,
    "evaluation.other_gesture_images": 2,
    "evaluation.export_images": 4,
}
"""As little work as still passes through every stage."""

GATES: dict[str, Any] = {
    "gates.gesture_accuracy": {"threshold": 0, "max_loss": 1},
    "gates.detection_rate": {"threshold": 0, "max_loss": 1},
    "gates.kid_h": {"threshold": None, "max_loss": 100},
    "gates.diversity": {"threshold": 0, "max_loss": 1},
    "gates.memorization_rate": {"threshold": 1, "max_loss": 1},
    "gates.general_detection_rate": {"max_loss_to_base": 1, "max_loss": 1},
    "gates.general_kid": {"threshold": 1000, "max_loss": 1000},
}
"""Bounds that a model passes which has learned nothing."""


@dataclass
class Measurement:
    """What is there after one run and after retention; sizes in bytes.

    Attributes:
        trained: Whether the run found other images.
        attempts: Processes that it took.
        seconds: Their time in all.
        root_bytes: Files below the root without MLflow's database.
        root_files: Their number.
        temporary_files: Files in the temporary folder.
        database_rows: Rows in all tables of MLflow's database.
        database_bytes: Size of the database.
        processes: Processes of the soak that are still alive.
        open_files: Files that the last process of the run had open at its end.
        peak_bytes: Its peak memory.
    """

    trained: bool
    attempts: int
    seconds: float
    root_bytes: int
    root_files: int
    temporary_files: int
    database_rows: int
    database_bytes: int
    processes: int
    open_files: int
    peak_bytes: int


def warm_up() -> None:
    """Import what a run needs, without starting a thread that a fork would lose."""
    import diffusers  # noqa: F401
    import mlflow  # noqa: F401
    import torch
    import transformers  # noqa: F401

    import hand1000.data.prepare
    import hand1000.evaluation.evaluator
    import hand1000.export.export
    import hand1000.pipelines.pipeline_hand1000
    import hand1000.registry.register
    import hand1000.reports.training
    import hand1000.training.stage2
    import hand1000.training.stage3  # noqa: F401
    import workflows.retrain  # noqa: F401

    torch.set_num_threads(1)


class FaultInjector:
    """Lets one call in a hundred fail or kill the process."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def install(self) -> None:
        """Wrap the store and MLflow's client in this process."""
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        from hand1000.core.errors import TransientError
        from hand1000.storage.artifacts import ArtifactStore

        for owner, names, error in (
            (ArtifactStore, STORE_METHODS, TransientError),
            # As MLflow's client reports a lost server; another error would be a refusal, which no attempt changes.
            (MlflowClient, CLIENT_METHODS, lambda text: MlflowException(f"API request to {text}")),
        ):
            for name in names:
                setattr(owner, name, self._wrap(getattr(owner, name), error))

    def _wrap(self, method: Callable[..., Any], error: Callable[[str], Exception]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            fault = self._random.choice(("fail before", "fail after", "kill before", "kill after"))
            if self._random.random() >= FAULT_SHARE:
                return method(*args, **kwargs)
            result = method(*args, **kwargs) if fault.endswith("after") else None
            if fault.startswith("kill"):
                os.kill(os.getpid(), signal.SIGKILL)
            del result
            raise error(f"{method.__name__} failed with exception: a fault of the soak")

        return call


def run_forked(body: Callable[[], None], log: Path) -> tuple[int, int, int]:
    """Run `body` in a child; return its exit code (a signal is negative), its open files at the end, its peak bytes."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with open(log, "ab", buffering=0) as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            body()
            code = 0
        except SystemExit as exit_request:
            code = int(exit_request.code or 0)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            with contextlib.suppress(BaseException):
                import atexit

                sys.stdout.flush()
                sys.stderr.flush()
                atexit._run_exitfuncs()
            os.write(write_end, str(len(os.listdir("/proc/self/fd"))).encode())
            os._exit(code)
    os.close(write_end)
    _, status, usage = os.wait4(child, 0)
    with os.fdopen(read_end) as pipe:
        open_files = int(pipe.read() or 0)
    return os.waitstatus_to_exitcode(status), open_files, usage.ru_maxrss * 1024


class Soak:
    """A root, a source of images that changes, and the runs on them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.root, self.images, self.pool = folder / "root", folder / "images", folder / "pool"
        self.log = folder / "log"
        self.random = random.Random(seed)

    def render_pool(self) -> None:
        """Render the images of which each change takes some."""

        def render() -> None:
            from hand1000.data.render.dataset import render_dataset

            render_dataset(self.pool, {"four": {"train": POOL, "test": TEST}}, seed=1000, size=64)

        self._check(run_forked(render, self.log)[0], "rendering")

    def change_images(self) -> None:
        """Replace the source: other training images, the same test images."""
        shutil.rmtree(self.images, ignore_errors=True)
        shutil.copytree(self.pool, self.images)
        file = self.images / "annotations" / "train" / "four.json"
        annotations = json.loads(file.read_text())
        kept = self.random.sample(sorted(annotations), TRAIN)
        file.write_text(json.dumps({name: annotations[name] for name in kept}))
        for name in set(annotations) - set(kept):
            (self.images / "four" / f"{name}.jpg").unlink()

    def retrain(self, number: int) -> tuple[int, int, int]:
        """Start the scheduled run until it ends; return attempts, open files and peak memory of the last one."""
        for attempt in range(1, MAX_ATTEMPTS + 1):
            code, open_files, peak = run_forked(functools.partial(self._retrain_once, number, attempt), self.log)
            if code == 0:
                return attempt, open_files, peak
        raise SystemExit(f"run {number} did not end in {MAX_ATTEMPTS} attempts; see {self.log}")

    def _retrain_once(self, number: int, attempt: int) -> None:
        import yaml

        from hand1000.config.settings import Settings, load_settings
        from workflows.retrain import retrain

        settings = load_settings("demo").with_overrides(SHORT | GATES)
        inputs = yaml.safe_load((REPOSITORY / "workflows/configs/retrain.yaml").read_text())
        inputs |= {"gesture": "four", "images": TRAIN, "data": str(self.images), "root": str(self.root), "shards": 1}
        inputs |= {
            "settings": Settings.model_validate(settings.model_dump()),
            "base_model": str(REPOSITORY / "models/small-base"),
        }
        inputs["kickoff"] = datetime.datetime(2026, 1, 1, 3, tzinfo=datetime.UTC) + datetime.timedelta(days=number)
        FaultInjector(f"{self.seed} {number} {attempt}").install()
        print(f"== run {number}, attempt {attempt}", flush=True)
        retrain(**inputs)

    def review_and_collect(self, number: int) -> None:
        """Decide about the candidates that wait, every other one for and against, and run retention."""

        def decide() -> None:
            from hand1000.cli.main import main
            from hand1000.registry.connection import connect
            from hand1000.registry.review import list_candidates, promote, reject

            tracking = connect(self.root)
            for candidate in list_candidates(tracking, "four"):
                if candidate.state == "pending":
                    if candidate.version.version % 2:
                        promote(tracking, candidate.version.uri, who="soak", expected_champion="any")
                    else:
                        reject(tracking, candidate.version.uri, who="soak", why="every other one")
            raise SystemExit(main(["gc", "--root", str(self.root), "--keep-days", "0", "--keep-reports-days", "0"]))

        self._check(run_forked(decide, self.log)[0], f"review {number}")

    def measure(self, trained: bool, run: tuple[int, int, int], seconds: float) -> Measurement:
        """Measure what is there now."""
        database = self.root / "mlflow.db"
        files = [path for path in self.root.rglob("*") if path.is_file() and not path.name.startswith("mlflow.")]
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            rows = sum(connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables)
        attempts, open_files, peak = run
        return Measurement(
            trained=trained,
            attempts=attempts,
            seconds=round(seconds, 1),
            root_bytes=sum(path.stat().st_size for path in files),
            root_files=len(files),
            temporary_files=sum(path.is_file() for path in Path(tempfile.gettempdir()).rglob("*")),
            database_rows=rows,
            database_bytes=database.stat().st_size,
            processes=count_processes(),
            open_files=open_files,
            peak_bytes=peak,
        )

    def _check(self, code: int, what: str) -> None:
        if code != 0:
            raise SystemExit(f"{what} failed with {code}; see {self.log}")


def count_processes() -> int:
    """Return the number of processes that this one or its children started and that are still alive."""
    count, mark = 0, f"{MARK}={os.environ[MARK]}".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            is_own = mark in path.read_bytes().split(b"\0")
            count += is_own and int(path.parent.name) != os.getpid()
    return count


def find_growth(rows: list[Measurement]) -> list[str]:
    """Return what is larger in the last third of the runs than in the third before, beyond 5 %; one line each."""
    third = len(rows) // 3
    middle, last = rows[third : 2 * third], rows[2 * third :]
    growth = []
    for name in ("root_bytes", "root_files", "temporary_files", "processes", "open_files", "peak_bytes"):
        before, after = (max(getattr(row, name) for row in part) for part in (middle, last))
        if after > 1.05 * before + 1:
            growth.append(f"{name}: {before} in the middle third, {after} in the last")
    costs = rows_per_training(rows)
    if len(costs) >= 6 and max(costs[-3:]) > 1.1 * max(costs[1:-3]):
        growth.append(f"database_rows of a training: {costs}")
    unchanged = [
        row.database_rows - before.database_rows for before, row in zip(rows, rows[1:], strict=False) if not row.trained
    ]
    if any(unchanged):
        growth.append(f"database_rows of runs without a change: {unchanged}")
    return growth


def rows_per_training(rows: list[Measurement]) -> list[int]:
    """Return how many rows each run that trained has added to MLflow's database, without the first one."""
    return [
        row.database_rows - before.database_rows for before, row in zip(rows, rows[1:], strict=False) if row.trained
    ]


def write_report(rows: list[Measurement], out: Path, seconds: float) -> None:
    """Write `soak.md` and `soak.png`."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from hand1000.core.tables import Table

    panels: tuple[tuple[str, list[float]], ...] = (
        ("root, MB", [row.root_bytes / 1e6 for row in rows]),
        ("files in the root", [row.root_files for row in rows]),
        ("peak memory, MB", [row.peak_bytes / 1e6 for row in rows]),
        ("open files at the end", [row.open_files for row in rows]),
        ("processes and temporary files left", [row.processes + row.temporary_files for row in rows]),
        ("MLflow rows", [row.database_rows for row in rows]),
    )
    axes: Any
    figure, axes = plt.subplots(2, 3, figsize=(11, 5), constrained_layout=True)
    numbers = range(1, len(rows) + 1)
    trained = [number for number, row in zip(numbers, rows, strict=True) if row.trained]
    for axis, (title, values) in zip(axes.flat, panels, strict=True):
        axis.plot(numbers, values, color="#3b6ea5", linewidth=1.2)
        axis.plot(trained, [values[number - 1] for number in trained], ".", color="#c0504d", markersize=5)
        axis.set_title(title, fontsize=10)
        axis.set_ylim(0, max(*values, 1) * 1.15)
        axis.set_xlabel("run", fontsize=8)
    figure.savefig(out / "soak.png", dpi=90, metadata={"Software": None})
    third = len(rows) // 3
    parts = (rows[:third], rows[third : 2 * third], rows[2 * third :])
    lines: list[tuple[str, ...]] = []
    for title, name, unit in (
        ("root, MB", "root_bytes", 1e6),
        ("files in the root", "root_files", 1),
        ("temporary files left", "temporary_files", 1),
        ("processes left", "processes", 1),
        ("open files at the end", "open_files", 1),
        ("peak memory, MB", "peak_bytes", 1e6),
    ):
        lines.append((title, *(f"{max(getattr(row, name) for row in part) / unit:.0f}" for part in parts)))
    for title, wanted in (("MLflow rows added by a training", True), ("MLflow rows added without a change", False)):
        added = [0] + [row.database_rows - before.database_rows for before, row in zip(rows, rows[1:], strict=False)]
        pairs = list(zip(added, rows, strict=True))[1:]
        groups = (pairs[: third - 1], pairs[third - 1 : 2 * third - 1], pairs[2 * third - 1 :])
        counts = [[count for count, row in group if row.trained is wanted] for group in groups]
        lines.append((title, *(str(max(group, default=0)) for group in counts)))
    table = Table(
        ("largest value in", "runs of the first third", "second third", "last third"), lines, numeric=range(1, 4)
    )
    attempts, trainings = sum(row.attempts for row in rows), sum(row.trained for row in rows)
    growth = find_growth(rows)
    text = (REPOSITORY / "benchmarks" / "soak.md.txt").read_text()
    flat = "Nothing grows by more than 5 % between the last two thirds."
    result = "It grows: " + "; ".join(growth) + "." if growth else flat
    text = text.format(
        runs=len(rows), trainings=trainings, attempts=attempts, minutes=round(seconds / 60), table=table.markdown(),
        result=result, bytes_per_row=round((rows[-1].database_bytes - rows[0].database_bytes)
                                           / max(1, rows[-1].database_rows - rows[0].database_rows)),
    )  # fmt: skip
    (out / "soak.md").write_text(text)


def main() -> None:
    """Run the soak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50, help="scheduled runs (default: 50)")
    parser.add_argument("--seed", type=int, default=1, help="seed of changes and faults (default: 1)")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs", help="folder of soak.md and soak.png")
    parser.add_argument("--folder", type=Path, help="new folder of the root (default: a temporary one)")
    options = parser.parse_args()
    os.environ |= {MARK: str(os.getpid()), "OMP_NUM_THREADS": "1"}
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="hand1000-soak-"))
    (folder / "tmp").mkdir(parents=True)
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder / "tmp")
    warm_up()
    soak, rows, started = Soak(folder, options.seed), [], time.monotonic()
    soak.render_pool()
    for number in range(1, options.runs + 1):
        trained = number % CHANGE_EVERY == 1
        if trained:
            soak.change_images()
        begun = time.monotonic()
        run = soak.retrain(number)
        if trained:
            soak.review_and_collect(number)
        rows.append(soak.measure(trained, run, time.monotonic() - begun))
        print(json.dumps({"run": number, **asdict(rows[-1])}), flush=True)
        if number % 10 == 0:
            write_report(rows, options.out, time.monotonic() - started)
    write_report(rows, options.out, time.monotonic() - started)
    if growth := find_growth(rows):
        raise SystemExit("it grows: " + "; ".join(growth))
    if options.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
