"""Decorators that turn a function into a Flyte task: pod, caches, checkpoint, progress, tracking and artifact."""

import functools
import inspect
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO, get_type_hints

from flytekit import Cache, Deck, FlyteContextManager, HashMethod, task
from flytekit.exceptions.user import FlyteRecoverableException
from flytekit.types.directory import FlyteDirectory
from pydantic import BaseModel, ConfigDict

from hand1000.config.settings import ComputeSettings, Settings
from hand1000.core.progress import CheckpointStore, ProgressBar, ProgressCallback, noop_callback
from tasks.resources import resources_table

if TYPE_CHECKING:
    from hand1000.registry.tracking import Run, RunTracker
    from hand1000.storage.artifacts import ArtifactStore
    from hand1000.training.context import TrainContext

EXPERIMENT = "hand1000"
CACHE_VERSION = "10"
"""Version of what all tasks compute, in Flyte's cache and in the artifact root's results."""
TASK_REVISIONS: dict[str, int] = {}
"""How often the result of a single task has changed since `CACHE_VERSION` was raised; later tasks see new content."""

Artifact = Annotated[FlyteDirectory, HashMethod(lambda directory: directory.path.rsplit("/", 1)[-1])]
"""A directory under the artifact root. Its name is the digest of its content, which Flyte's cache takes as its hash."""


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to the present `sys.stderr`, which a notebook or a test may have replaced."""

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr

    @stream.setter
    def stream(self, stream: TextIO) -> None:
        pass


logger = logging.getLogger("hand1000.tasks")
if not logger.handlers:
    logger.addHandler(_StderrHandler())
    logger.setLevel(logging.INFO)
    logger.propagate = False


class RunContext(BaseModel):
    """Where a workflow run keeps its artifacts, and where it is tracked.

    Attributes:
        root: The artifact root, a folder or `s3://bucket/prefix`.
        run_id: Key of the MLflow parent run; "" tracks nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    root: str
    run_id: str = ""


@dataclass(frozen=True)
class KeyedBy:
    """Annotation of a task's input whose cache key is `function` of its value: `Annotated[str, KeyedBy(digest)]`."""

    function: Callable[[Any], Any]


def model_key(address: str) -> str:
    """The identity of the model at an address, which decides in its place; "" names none."""
    from hand1000.storage.hub import model_identity

    return model_identity(address) if address else ""


BaseModelAddress = Annotated[str, KeyedBy(model_key)]
"""A diffusers folder, an `s3://` address, or a hub id with its revision; its content decides, not its address."""


@dataclass
class TaskContext:
    """The services that a task's body uses while it makes its artifact.

    Attributes:
        run: Artifact root and tracking of the workflow run.
        store: The artifact store at that root.
        output_dir: The empty folder that the body fills.
        checkpoint: The durable store for the state of this piece of work.
        on_progress: Called with (done, total, metrics); shows a line and, with a tracker, logs the metrics live.
        loaded: What the task's `load` returned.
    """

    run: RunContext
    store: "ArtifactStore"
    output_dir: Path
    checkpoint: CheckpointStore
    on_progress: ProgressCallback
    loaded: Mapping[str, Any] = field(default_factory=dict)

    def download(self, artifact: FlyteDirectory) -> Path:
        """The local folder of an artifact; one on `s3://` is downloaded once per process and verified."""
        return self.store.fetch(address(artifact))

    def download_all(self, artifacts: Sequence[FlyteDirectory]) -> list[Path]:
        """The local folders of a map task's artifacts."""
        return [self.download(artifact) for artifact in artifacts]

    def train_context(self, seed: int, compute: ComputeSettings | None = None) -> "TrainContext":
        """The context of a training that saves its state and reports its progress here."""
        from hand1000.training.context import TrainContext

        context = TrainContext(seed=seed, checkpoint=self.checkpoint, on_progress=self.on_progress)
        return context.replace(compute=compute) if compute else context

    def scratch_dir(self, name: str) -> Path:
        """A path beside `output_dir` for files that are not part of the artifact."""
        return self.output_dir.with_name(f"scratch-{name}")


@dataclass(frozen=True)
class TaskResult:
    """A task's artifact, made now or by an earlier run, for the `finish` of the task.

    Attributes:
        run: Artifact root and tracking of the workflow run.
        inputs: The task's inputs by name.
        loaded: What the task's `load` returned.
        artifact: The published artifact.
        folder: Its local folder.
    """

    run: RunContext
    inputs: Mapping[str, Any]
    loaded: Mapping[str, Any]
    artifact: FlyteDirectory
    folder: Path


def shard_label(inputs: Mapping[str, Any]) -> str:
    """The label of the input `shard`, with `shards` if there is one; "" without either."""
    if "shard" not in inputs:
        return ""
    of_shards = f" of {inputs['shards']}" if "shards" in inputs else ""
    return f"shard {inputs['shard'] + 1}{of_shards}"


def artifact_task(
    *,
    key_by: Mapping[str, Callable[[Any], Any]] | None = None,
    excluded: Sequence[str] = (),
    load: Callable[[RunContext, Mapping[str, Any]], Mapping[str, Any]] | None = None,
    finish: Callable[[TaskResult], Any] | None = None,
    label: Callable[[Mapping[str, Any]], str] = shard_label,
    deck: str = "",
    summary: str = "",
    processes: int = 1,
    nodes: int = 1,
) -> Callable[..., Any]:
    """Make a Flyte task of `body(context, *inputs) -> None`, which fills `context.output_dir`.

    Flyte sees the inputs and a `run: RunContext`. The cache key of the artifact is made of every input
    (`cache_key_of`); what deviates is named here.

    Args:
        key_by: By the name of an input, the function of its value that enters the key in its place.
        excluded: Inputs that do not decide the content of the artifact.
        load: Takes the run and the inputs and returns what else the body needs and the result depends on, by name:
            plain data, or objects with `cache_key_fields()`. The body finds it in `context.loaded`.
        finish: Called with the artifact, also when an earlier run made it; returns the outputs of the task.
        label: Takes the inputs and returns what distinguishes this piece of the task's work in progress lines; by
            default its shard.
        deck: HTML file of the artifact that the task shows as its Deck and names on stdout.
        summary: Text file of the artifact that the task prints.
        processes: Processes on each machine, one GPU each.
        nodes: Machines.
    """

    def decorate(body: Callable[..., None]) -> Any:
        work = ArtifactWork(body, key_by or {}, excluded, load, finish, label, deck, summary)
        cache = Cache(version=task_version(body.__name__), ignored_inputs=("run",))
        return _flyte_task(work.function(), cache=cache, enable_deck=bool(deck), processes=processes, nodes=nodes)

    return decorate


@dataclass(frozen=True)
class ArtifactWork:
    """The arguments of `artifact_task`, and what follows from them."""

    body: Callable[..., None]
    key_by: Mapping[str, Callable[[Any], Any]]
    excluded: Sequence[str]
    load: Callable[[RunContext, Mapping[str, Any]], Mapping[str, Any]] | None
    finish: Callable[[TaskResult], Any] | None
    label: Callable[[Mapping[str, Any]], str]
    deck: str
    summary: str

    def function(self) -> Callable[..., Any]:
        """The function that Flyte runs: its signature has the inputs in plain types, and a `run`.

        A partial of a function of this module, which flytekit takes for one at module level that returns something, and
        which torch's launcher can pickle.

        Raises:
            TypeError: `key_by` or `excluded` names no input.
        """
        name = self.body.__name__
        inputs = {name: kind for name, kind in get_type_hints(self.body).items() if name not in ("context", "return")}
        if unknown := {*self.key_by, *self.excluded} - set(inputs):
            raise TypeError(f"{name}: has no input {', '.join(sorted(unknown))}")
        returned = get_type_hints(self.finish, include_extras=True)["return"] if self.finish else Artifact
        inputs["run"] = RunContext
        function: Any = functools.update_wrapper(functools.partial(run_artifact_work, self), self.body)
        function.__wrapped__ = run_artifact_work
        function.__annotations__ = inputs | {"return": returned}
        function.__signature__ = inspect.Signature(
            [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind) for name, kind in inputs.items()],
            return_annotation=returned,
        )
        return function

    def cache_key(self, inputs: Mapping[str, Any], loaded: Mapping[str, Any]) -> dict[str, Any]:
        """All that decides the artifact."""
        annotations = get_type_hints(self.body, include_extras=True)
        fields = {
            name: self.key_by[name](value) if name in self.key_by else cache_key_of(value, annotations[name])
            for name, value in inputs.items()
            if name not in self.excluded
        }
        return fields | {name: cache_key_of(value) for name, value in loaded.items()}


def cluster_task(*, enable_deck: bool = False) -> Callable[..., Any]:
    """Make a Flyte task without an artifact of a function that takes seconds; nothing caches it."""
    return lambda function: _flyte_task(report_user_errors(function), cache=False, enable_deck=enable_deck)


def _flyte_task(
    function: Callable[..., Any], *, cache: Cache | bool, enable_deck: bool, processes: int = 1, nodes: int = 1
) -> Any:
    """Make a Flyte task of `function` with the pod that `resources.yaml` gives its name.

    On one machine it stays a plain task; several need Kubeflow's training operator. torch's launcher starts the
    processes, also where there is neither a GPU nor a cluster.
    """
    options = resources_table().pod_of(function.__name__).options(processes)
    if processes * nodes > 1:
        from flytekitplugins.kfpytorch import Elastic

        # The pod sets its shared memory itself.
        options["task_config"] = Elastic(nnodes=nodes, nproc_per_node=processes, increase_shared_mem=False)
        # The container imports the task's module again and must come to the same configuration.
        options["environment"] = {"HAND1000_PROCESSES": str(processes), "HAND1000_NODES": str(nodes)}
    return task(function, cache=cache, enable_deck=enable_deck, **options)


def report_user_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """End a local run with one line instead of Flyte's traceback when the input is at fault.

    On a cluster Flyte retries only what is marked as worth it.
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
            logger.info("hand1000: error: %s", error)
            raise SystemExit(2) from error

    return run


@report_user_errors
def run_artifact_work(work: ArtifactWork, **inputs: Any) -> Any:
    """Run an `artifact_task`: the body only where its artifact is missing, the rest always."""
    from hand1000.storage.artifacts import open_store

    run = inputs.pop("run")
    loaded = work.load(run, inputs) if work.load else {}
    name = work.body.__name__
    artifact = run_cached(
        name,
        run,
        work.cache_key(inputs, loaded),
        lambda context: work.body(context, **inputs),
        label=work.label(inputs),
        loaded=loaded,
    )
    if not (work.finish or work.deck or work.summary):
        return artifact
    folder = open_store(run.root).fetch(address(artifact))
    if work.summary:
        print(f"\n{(folder / work.summary).read_text()}")
    if work.deck:
        print(f"report      {address(artifact)}/{work.deck}", flush=True)
        Deck(name, (folder / work.deck).read_text())
    return work.finish(TaskResult(run, inputs, loaded, artifact, folder)) if work.finish else artifact


def task_version(task_name: str) -> str:
    """The version of what one task computes."""
    return f"{CACHE_VERSION}.{TASK_REVISIONS[task_name]}" if task_name in TASK_REVISIONS else CACHE_VERSION


def config_digest(settings: Settings, base_model: str) -> str:
    """Digest of what a model depends on besides its data."""
    from hand1000.storage.digests import digest_json

    return digest_json([CACHE_VERSION, TASK_REVISIONS, settings.model_dump(mode="json"), model_key(base_model)])


def address(artifact: FlyteDirectory) -> str:
    """The address under which an artifact was published."""
    return artifact.remote_source or str(artifact.path)


def digest(artifact: FlyteDirectory) -> str:
    """The content digest of an artifact, the last part of its address."""
    return address(artifact).rstrip("/").rsplit("/", 1)[-1]


def cache_key_of(value: Any, annotation: Any = None) -> Any:
    """The part of a cache key that `value` is: an artifact's digest, the fields of an object that decide, or itself."""
    for marker in getattr(annotation, "__metadata__", ()):
        if isinstance(marker, KeyedBy):
            return marker.function(value)
    if isinstance(value, FlyteDirectory):
        return digest(value)
    if hasattr(value, "cache_key_fields"):
        return value.cache_key_fields()
    if isinstance(value, Mapping):
        return [[name, cache_key_of(item)] for name, item in sorted(value.items())]
    if isinstance(value, list | tuple):
        return [cache_key_of(item) for item in value]
    return value


def run_cached(
    task_name: str,
    run: RunContext,
    key: Mapping[str, Any],
    body: Callable[[TaskContext], None],
    *,
    label: str = "",
    loaded: Mapping[str, Any] | None = None,
) -> FlyteDirectory:
    """The artifact that `body` makes, or the one that it made before for the same key.

    Args:
        task_name: Name of the task in `<root>/results/`, and of its child run in MLflow.
        run: Artifact root and tracking of the workflow run.
        key: All that decides the result.
        body: Fills `context.output_dir`.
        label: Distinguishes this piece of the task's work (a shard) in progress lines.
        loaded: Becomes `context.loaded`.

    Raises:
        Hand1000Error: What `body` or the storage raises; nothing incomplete is ever published.
    """
    from hand1000.core.devices import peak_memory, reset_peak_memory
    from hand1000.storage.artifacts import open_store
    from hand1000.storage.digests import digest_json

    store = open_store(run.root)
    digest = digest_json([task_version(task_name), key])
    checkpoint = store.checkpoint(task_name, digest)
    context = functools.partial(TaskContext, run=run, store=store, checkpoint=checkpoint, loaded=loaded or {})
    if _is_worker_rank():
        return _run_worker_rank(store, store.get_result(task_name, digest) is None, context, body)
    child = open_tracker(run).child_run(task_name) if run.run_id else None
    title = f"{task_name} {label}".strip()
    record = store.get_result(task_name, digest)
    if record is None:
        logger.info("%s: started", title)
        started = time.monotonic()
        with store.workspace() as workspace:
            output_dir = workspace / "out"
            output_dir.mkdir()
            reset_peak_memory()
            body(context(output_dir=output_dir, on_progress=make_progress_callback(title, child)))
            peak = peak_memory()
            record = {
                "address": store.publish(task_name, output_dir),
                "seconds": round(time.monotonic() - started, 3),
                "peak_bytes": peak,
            }
        store.put_result(task_name, digest, record)
        checkpoint.clear()
        logger.info("%s: done in %.1f s", title, record["seconds"])
    else:
        logger.info("%s: already there", title)
    if child is not None:
        _log_record(child, label or "all", record, store)
    return FlyteDirectory(record["address"], remote_directory=False)


def _is_worker_rank() -> bool:
    """Whether this is a process that torch's launcher started beside the main one."""
    return os.environ.get("RANK", "0") != "0"


def _run_worker_rank(
    store: "ArtifactStore", missing: bool, context: Callable[..., TaskContext], body: Callable[[TaskContext], None]
) -> FlyteDirectory:
    """Compute beside the main process, which alone reports, saves and publishes."""
    with store.workspace() as workspace:
        if missing:
            output_dir = workspace / "out"
            output_dir.mkdir()
            body(context(output_dir=output_dir, on_progress=noop_callback))
        return FlyteDirectory(str(workspace), remote_directory=False)


def shard_range(count: int, unit: int, shard: int, shards: int) -> range:
    """The items of one shard: a run of whole batches of `unit`, so that no batch is cut in two."""
    batches = -(-count // unit)
    first, last = batches * shard // shards, batches * (shard + 1) // shards
    return range(min(first * unit, count), min(last * unit, count))


def mlflow_folder(root: str) -> Path:
    """The folder of the embedded MLflow when no server is named: a local root, else `artifacts` here."""
    return Path("artifacts" if "://" in root else root)


def open_tracker(run: RunContext) -> "RunTracker":
    """The MLflow parent run of a workflow run."""
    from hand1000.registry.connection import connect
    from hand1000.registry.tracking import RunTracker

    return RunTracker(EXPERIMENT, run.run_id, connect(mlflow_folder(run.root)))


def _log_record(child: "Run", part: str, record: Mapping[str, Any], store: "ArtifactStore") -> None:
    """Log an artifact's history and time to its task's child run, whether it was made now or by an earlier run."""
    from hand1000.storage.files import read_jsonl

    history = store.fetch(record["address"]) / "history.jsonl"
    if history.is_file():
        child.log_history(row for _, row in read_jsonl(history))
    child.log_seconds(part.replace(" ", "_"), record["seconds"])
    child.set_tags({f"hand1000.artifact.{part.replace(' ', '_')}": record["address"]})
    child.finish()


def make_progress_callback(title: str, child: "Run | None") -> ProgressCallback:
    """A progress bar that also draws the metrics' curves in MLflow, at the pace at which it is shown."""
    on_display = (lambda step, metrics: child.log_history([{"step": step, **metrics}])) if child else None
    return ProgressBar(title, on_display=on_display)


@cluster_task()
def start_run(gesture: str, images: int, data: str, base_model: str, settings: Settings, root: str) -> RunContext:
    """Get or create the MLflow parent run of these inputs: the same inputs are the same run."""
    from hand1000.gestures import parse_gestures, slug
    from hand1000.storage.digests import digest_json

    gestures = parse_gestures(gesture)
    settings.stage2.check_gestures(gestures)
    inputs = {
        "gesture": gesture,
        "images": images,
        "data": data,
        "base_model": base_model,
        "settings": settings.model_dump(mode="json"),
    }
    run_id = f"{slug(gestures)}-{digest_json([inputs, model_key(base_model)])[:12]}"
    run = RunContext(root=root, run_id=run_id)
    open_tracker(run).log_params(inputs)
    return run


@cluster_task()
def untracked_run(root: str) -> RunContext:
    """The context of a workflow that MLflow does not track."""
    return RunContext(root=root)


@cluster_task()
def shard_indices(shards: int) -> list[int]:
    """0 to shards - 1, the inputs of the map tasks."""
    return list(range(shards))
