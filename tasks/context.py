"""What all tasks share: what a cluster is told, and the way from inputs to an artifact under the root."""

import functools
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from flytekit import Cache, FlyteContextManager, HashMethod, task
from flytekit.exceptions.user import FlyteRecoverableException
from flytekit.types.directory import FlyteDirectory

from hand1000.config.settings import Settings
from tasks.resources import resources_table

if TYPE_CHECKING:
    from hand1000.registry.tracking import Run, RunTracker
    from hand1000.storage.artifacts import ArtifactStore

EXPERIMENT = "hand1000"
CACHE_VERSION = "9"
"""Of what the tasks compute, in Flyte's cache and in ours: raised when all of them come to give another result."""
TASK_REVISIONS = {
    "average_hands": 1,
    "encode_data": 1,
    "evaluate": 1,
    "measure_systems": 1,
    "refine_embeddings": 1,
    "register": 2,
    "train_fusion": 2,
    "train_unet": 1,
    "write_comparison": 1,
}
"""How often single ones did since then; those that follow go by what they are given."""

Artifact = Annotated[FlyteDirectory, HashMethod(lambda directory: directory.path.rsplit("/", 1)[-1])]
"""A directory under the artifact root, whose name is the digest of its content: that is its hash for Flyte's cache."""


def report_user_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """Ends a local run with one line instead of Flyte's traceback when the input is at fault.

    On a cluster Flyte tries again only what is said to be worth it.
    """
    from hand1000.core.errors import Hand1000Error, TransientError

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Hand1000Error as error:
            if not FlyteContextManager.current_context().execution_state.is_local_execution():
                if isinstance(error, TransientError):
                    raise FlyteRecoverableException(str(error)) from error
                raise
            _say(f"hand1000: error: {error}")
            raise SystemExit(2) from error

    return run


def cluster_task(
    *, ignored_inputs: tuple[str, ...] = ("run", "root"), processes: int = 1, nodes: int = 1, **options: Any
) -> Callable[..., Any]:
    """A decorator for a task with the pod that `resources.yaml` gives it, cached by its inputs but `ignored_inputs`.

    `processes`, a GPU each, run it on each of `nodes` machines. On one machine it stays a plain task; several need
    Kubeflow's training operator. torch's launcher starts the processes, also where there is no GPU and no cluster.
    """

    def make(function: Callable[..., Any]) -> Any:
        name = function.__name__
        given = resources_table().pod_of(name).options(processes)
        given["cache"] = Cache(version=task_version(name), ignored_inputs=ignored_inputs)
        if processes * nodes > 1:
            from flytekitplugins.kfpytorch import Elastic

            # Its own way to more shared memory would be a second one.
            given["task_config"] = Elastic(nnodes=nodes, nproc_per_node=processes, increase_shared_mem=False)
            # The container loads the task's module anew and must come to the same configuration.
            given["environment"] = {"HAND1000_PROCESSES": str(processes), "HAND1000_NODES": str(nodes)}
        return task(report_user_errors(function), **(given | options))

    return make


def task_version(task_name: str) -> str:
    """Of what one task computes."""
    return f"{CACHE_VERSION}.{TASK_REVISIONS[task_name]}" if task_name in TASK_REVISIONS else CACHE_VERSION


def config_digest(settings: Settings, base_model: str) -> str:
    """What a model depends on besides its data."""
    from hand1000.storage.digests import digest_json
    from hand1000.storage.hub import model_identity

    return digest_json([CACHE_VERSION, TASK_REVISIONS, settings.model_dump(mode="json"), model_identity(base_model)])


@dataclass
class TaskContext:
    """What a task's body is given while it makes its artifact.

    Attributes:
        store: the artifact root.
        out: the empty folder to be filled.
        checkpoint: the lasting place for the state of this very piece of work.
        report: takes (done, total, values) and shows a line; with a tracker it also logs the values live.
    """

    store: "ArtifactStore"
    out: Path
    checkpoint: Any
    report: Callable[..., None]

    def read(self, directory: FlyteDirectory) -> Path:
        """The local folder of an artifact; on `s3://` it is downloaded once a process and verified."""
        return self.store.fetch(address(directory))


def address(directory: FlyteDirectory) -> str:
    """Where an artifact lies, as it was published."""
    return directory.remote_source or str(directory.path)


def digest(directory: FlyteDirectory) -> str:
    """The content digest of an artifact, which its address ends with."""
    return address(directory).rstrip("/").rsplit("/", 1)[-1]


def run_cached(
    task_name: str,
    *,
    root: str,
    run: str,
    inputs: Mapping[str, Any],
    build: Callable[[TaskContext], None],
    label: str = "",
) -> FlyteDirectory:
    """The artifact that `build` makes from `inputs`, or the one it made before.

    Args:
        task_name: names the task in `<root>/results/` and its child run in MLflow.
        root: the artifact root.
        run: key of the MLflow parent run; "" tracks nothing.
        inputs: all that decides the result; artifacts stand for their content. Nothing else may enter `build`.
        build: fills `work.out`.
        label: tells this piece of work from others of the task (a shard, say) in progress lines.

    Raises:
        Hand1000Error: what `build` or the storage raises; nothing incomplete is ever published.
    """
    from hand1000.core.devices import peak_memory, reset_peak_memory
    from hand1000.storage.artifacts import open_store
    from hand1000.storage.digests import digest_json

    store = open_store(root)
    key = digest_json([task_version(task_name), {name: cache_key_of(value) for name, value in inputs.items()}])
    if int(os.environ.get("RANK", "0")):
        return run_worker_rank(store, task_name, key, build)
    stage = open_tracker(run, root).stage(task_name) if run else None
    title = f"{task_name} {label}".strip()
    record = store.get_result(task_name, key)
    if record is None:
        _say(f"{title}: started")
        started = time.monotonic()
        checkpoint = store.checkpoint(task_name, key)
        with store.workspace() as workspace:
            work = TaskContext(store, workspace / "out", checkpoint, make_progress_callback(title, stage))
            work.out.mkdir()
            reset_peak_memory()
            build(work)
            peak = peak_memory()
            record = {
                "address": store.publish(task_name, work.out),
                "seconds": round(time.monotonic() - started, 3),
                "peak_bytes": peak,
            }
        store.put_result(task_name, key, record)
        checkpoint.clear()
        _say(f"{title}: done in {record['seconds']:.1f} s")
    else:
        _say(f"{title}: already there")
    if stage is not None:
        _log(stage, label or "all", record, store)
    return FlyteDirectory(record["address"], remote_directory=False)


def run_worker_rank(
    store: "ArtifactStore", task_name: str, key: str, build: Callable[[TaskContext], None]
) -> FlyteDirectory:
    """Build beside the first of the processes that a launcher started, which alone reports, saves and publishes."""
    with store.workspace() as workspace:
        if store.get_result(task_name, key) is None:
            work = TaskContext(store, workspace / "out", store.checkpoint(task_name, key), lambda *_: None)
            work.out.mkdir()
            build(work)
        return FlyteDirectory(str(workspace), remote_directory=False)


def shard_range(count: int, unit: int, shard: int, shards: int) -> range:
    """The items of shard `shard` of `shards`: a run of whole batches of `unit`, so that shards cut no batch in two."""
    batches = -(-count // unit)
    first, last = batches * shard // shards, batches * (shard + 1) // shards
    return range(min(first * unit, count), min(last * unit, count))


def mlflow_folder(root: str) -> Path:
    """Where the embedded MLflow lies when no server is named: in a local root, else in `artifacts` here."""
    return Path("artifacts" if "://" in root else root)


def open_tracker(run: str, root: str) -> "RunTracker":
    """The parent run of a workflow run."""
    from hand1000.registry.connection import connect
    from hand1000.registry.tracking import RunTracker

    return RunTracker(EXPERIMENT, run, connect(mlflow_folder(root)))


def _log(stage: "Run", part: str, record: Mapping[str, Any], store: "ArtifactStore") -> None:
    """What the artifact holds of its making: the same whether it was made now or is from an earlier run."""
    from hand1000.storage.files import read_jsonl

    history = store.fetch(record["address"]) / "history.jsonl"
    if history.is_file():
        stage.log_history(row for _, row in read_jsonl(history))
    stage.log_seconds(part.replace(" ", "_"), record["seconds"])
    stage.set_tags({f"hand1000.artifact.{part.replace(' ', '_')}": record["address"]})
    stage.finish()


def cache_key_of(value: Any) -> Any:
    """What stands for `value` in the key of a result."""
    if isinstance(value, FlyteDirectory):
        return digest(value)
    if isinstance(value, list | tuple):
        return [cache_key_of(item) for item in value]
    return value


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def make_progress_callback(title: str, stage: "Run | None") -> Callable[..., None]:
    """Shows how far the work is, a moving line or, off a terminal, one every ten seconds; fills MLflow's curve."""
    last = 0.0
    started = time.monotonic()

    def report(done: int, total: int, values: Mapping[str, float] | None = None) -> None:
        nonlocal last
        now = time.monotonic()
        terminal = sys.stderr.isatty()
        if done < total and now - last < (1.0 if terminal else 10.0):
            return
        last = now
        if stage is not None and values:
            stage.log_history([{"step": done, **values}])
        shown = "".join(f", {name} {value:.4f}" for name, value in (values or {}).items())
        line = f"{title}: {done}/{total}{shown}, {now - started:.0f} s"
        print(
            f"\r\033[K{line}" if terminal else line,
            end="" if terminal and done < total else "\n",
            file=sys.stderr,
            flush=True,
        )

    return report
