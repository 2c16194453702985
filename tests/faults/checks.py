"""What a rerun must leave: the bits of the undisturbed run, no other file, and each record in MLflow once."""

import contextlib
import hashlib
import re
import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

_DATABASE = ("mlflow.db", "mlflow.db-journal", "mlflow.db-wal", "mlflow.db-shm", "mlflow.lock", "mlflow.recorded.json")
_RANDOM_NAMES = (
    (re.compile(r"\bm-[0-9a-f]{32}\b"), "<model>"),
    (re.compile(r"register/[0-9a-f]{64}"), "register/<id>"),
    (re.compile(r"(mlartifacts/[^/]+)/[0-9a-f]{32}\b"), r"\1/<run>"),
)
_OWN_BITS = ("results/", "provenance/", "artifacts/register/")
"""Records of durations, of random ids of MLflow, and of paths: only their presence is compared."""
_MLFLOW_TEXT = (".html", ".json", ".md", "MLmodel", ".zip", ".yaml", ".yml", ".txt")
"""Files of a registered model with times and ids; its weights and images are compared."""


@dataclass
class Findings:
    """What is wrong after a rerun, one line each; empty lists are as it must be."""

    bits: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    endings: list[str] = field(default_factory=list)


@cache
def _digest(path: str, inode: int, size: int, modified: int) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def list_files(root: Path) -> dict[str, str]:
    """Return the digest of each file below a root by its name without random parts; "" where bits may differ."""
    files = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_dir():
            if name.startswith("scratch/") or (name.startswith("unsent/")):
                files[f"{name}/"] = ""
            continue
        if name in _DATABASE:
            continue
        varies = name.startswith(_OWN_BITS) or (name.startswith("mlartifacts/") and name.endswith(_MLFLOW_TEXT))
        status = path.stat()
        digest = "" if varies else _digest(str(path), status.st_ino, status.st_size, status.st_mtime_ns)
        name = without_random_names(name)
        # The same file of a second model or run must not hide behind the first. (A second registration may: its folder
        # holds times, so that it is another artifact, and the former one stays until it is collected.)
        while name in files and name.startswith("mlartifacts/"):
            name = f"{name} (again)"
        files[name] = digest
    return files


def without_random_names(name: str) -> str:
    """Return a path with the ids that each run draws replaced by constants."""
    for pattern, constant in _RANDOM_NAMES:
        name = pattern.sub(constant, name)
    # The key of a registration contains the id of the run in MLflow.
    return re.sub(r"results/register/[0-9a-f]+", "results/register/<id>", name)


def compare_files(actual: Mapping[str, str], expected: Mapping[str, str], findings: Findings) -> None:
    """Add the differences of two roots."""
    findings.bits += [f"missing: {name}" for name in sorted(set(expected) - set(actual))]
    findings.bits += [
        f"differs: {name}" for name in sorted(set(expected) & set(actual)) if actual[name] != expected[name]
    ]
    findings.left += [f"left: {name}" for name in sorted(set(actual) - set(expected))]


def compare_folder_empty(folder: Path, findings: Findings) -> None:
    """Add what a run has left in a temporary folder or a home."""
    findings.left += [f"left: {path.name}" for path in folder.rglob("*") if path.is_file()]


@dataclass(frozen=True)
class Records:
    """What MLflow holds, without ids, times and values that vary.

    Attributes:
        runs: Number of active runs by name and status.
        points: Number of points by run, metric and step.
        params: Number of parameters by run and name.
        versions: Number of versions by registered model.
        models: Number of logged models by status.
    """

    runs: Counter[Any]
    points: Counter[Any]
    params: Counter[Any]
    versions: Counter[Any]
    models: Counter[Any]


def read_records(database: Path, run_key: str = "") -> Records:
    """Read the records of a sqlite database of MLflow; with `run_key` only those of that run and its children."""
    if not database.exists():
        return Records(*(Counter() for _ in range(5)))
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as connection:
        active = "SELECT run_uuid, name, status FROM runs WHERE lifecycle_stage = 'active'"
        runs = {row[0]: (row[1], row[2]) for row in connection.execute(active)}
        if run_key:
            tags = connection.execute("SELECT run_uuid, key, value FROM tags").fetchall()
            parents = {run for run, key, value in tags if key == "hand1000.run_key" and value == run_key}
            children = {run for run, key, value in tags if key == "mlflow.parentRunId" and value in parents}
            runs = {run: kept for run, kept in runs.items() if run in parents | children}
            # A key that names the run is also its name, unless the workflow names it.
            runs = {run: (name.replace(run_key, "<key>"), status) for run, (name, status) in runs.items()}
        metrics = connection.execute("SELECT run_uuid, key, step FROM metrics").fetchall()
        params = connection.execute("SELECT run_uuid, key FROM params").fetchall()
        versions = connection.execute(
            "SELECT run_id, name FROM model_versions WHERE current_stage != 'Deleted_Internal'"
        )
        models = connection.execute(
            "SELECT source_run_id, status, lifecycle_stage FROM logged_models WHERE lifecycle_stage = 'active'"
        )
        return Records(
            Counter(runs.values()),
            Counter((runs[run][0], key, step) for run, key, step in metrics if run in runs),
            Counter((runs[run][0], key) for run, key in params if run in runs),
            Counter(name for run, name in versions if run in runs),
            Counter((status, stage) for run, status, stage in models if run in runs),
        )


def compare_records(actual: Records, expected: Records, findings: Findings) -> None:
    """Add the differences of two MLflows: what is there twice, what is missing, and a run with another status."""
    for name in ("runs", "points", "params", "versions", "models"):
        have, want = getattr(actual, name), getattr(expected, name)
        for key in sorted(set(have) | set(want), key=str):
            if have[key] != want[key]:
                findings.duplicates.append(f"MLflow: {name} {key}: {have[key]} instead of {want[key]}")
