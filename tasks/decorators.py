"""Decorators that make Flyte tasks: pod, caches, checkpoint, progress, MLflow child run and published artifact."""

import contextlib
import dataclasses
import functools
import inspect
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO, get_type_hints

from flytekit import Cache, Deck, FlyteContextManager, task
from flytekit.deck import DeckField
from flytekit.exceptions.user import FlyteRecoverableException
from flytekit.types.directory import FlyteDirectory

from hand1000.config.settings import Settings
from hand1000.core.allocator import reused_heap
from hand1000.core.devices import peak_memory, reset_peak_memory
from hand1000.core.errors import Hand1000Error, TransientError, translate_system_errors
from hand1000.core.interruption import Interrupted, deferred_interruption, raise_if_interrupted, uninterrupted_step
from hand1000.core.progress import ProgressBar, noop_callback
from hand1000.storage.digests import digest_json
from hand1000.storage.files import read_jsonl
from hand1000.storage.hub import model_identity
from tasks.command import is_command
from tasks.context import (
    Artifact,
    RunContext,
    TaskContext,
    TaskResult,
    address,
    artifact_name,
    digest,
    portable_address,
)
from tasks.resources import resources_table

if TYPE_CHECKING:
    from hand1000.registry.recorder import RunRecorder
    from hand1000.storage.artifacts import ArtifactStore

CACHE_VERSION = "10"
"""Version of what all tasks compute, in Flyte's cache and in the artifact root's results."""
TASK_REVISIONS: dict[str, int] = {
    "assemble_model": 1,
    "evaluate": 6,
    "extract_real_features": 1,
    "find_hands": 1,
    "generate_base": 1,
    "generate_class_images": 1,
    "generate_general": 1,
    "generate_tuned": 1,
    "imagic_base": 1,
    "imagic_tuned": 1,
    "optimize_embeddings": 1,
    "prepare_data": 3,
    "train_fusion": 1,
    "train_unet": 1,
}
"""How often the result of a single task has changed since `CACHE_VERSION` was raised; later tasks see new content."""

DECK_FIELDS = (DeckField.TIMELINE, DeckField.INPUT, DeckField.OUTPUT)
"""What Flyte adds to a Deck: without the packages, for which it would run `pip list` and `pip freeze` in every task."""


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to the present `sys.stderr`, which a notebook or a test may have replaced."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


logger = logging.getLogger("hand1000.tasks")
logger.handlers = [_StderrHandler()]
logger.setLevel(logging.INFO)
logger.propagate = False


def report_user_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """End `pyflyte run` with one line instead of Flyte's traceback: status 2 for a fault of the input.

    A signal ends it with 128 + the signal's number, once what is unfinished has been saved. On a cluster Flyte retries
    only errors that are marked as recoverable: those that may pass, and signals. A program that calls a task as a
    function gets the errors themselves.
    """

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            with deferred_interruption(), translate_system_errors(_written_folder(kwargs)):
                return function(*args, **kwargs)
        except Interrupted as error:
            if not is_local():
                raise FlyteRecoverableException(str(error)) from error
            if not is_command():
                raise
            logger.error("hand1000: %s", error)
            raise SystemExit(error.exit_status) from error
        except Hand1000Error as error:
            if is_local() and is_command():
                logger.error("hand1000: error: %s", error)
                raise SystemExit(2) from error
            if isinstance(error, TransientError) and not is_local():
                raise FlyteRecoverableException(str(error)) from error
            raise

    return run


def _written_folder(inputs: Mapping[str, Any]) -> str:
    """The folder that a task with these inputs fills: its artifact root, or the system's temporary one beside S3."""
    root = inputs["run"].root if "run" in inputs else inputs.get("root", ".")
    return tempfile.gettempdir() if "://" in root else root


def is_local() -> bool:
    """Whether the task runs in a local execution and not in a pod."""
    return FlyteContextManager.current_context().execution_state.is_local_execution()


def cluster_task(*, enable_deck: bool = False) -> Callable[..., Any]:
    """Make a Flyte task without an artifact of a function that takes seconds; nothing caches it."""
    return lambda function: _flyte_task(report_user_errors(function), cache=False, enable_deck=enable_deck)


def _flyte_task(
    function: Callable[..., Any], *, cache: Cache | bool, enable_deck: bool, processes: int = 1, nodes: int = 1
) -> Any:
    """Make a Flyte task with the pod that `resources.yaml` gives its name.

    On one machine it stays a plain task; several need Kubeflow's training operator. torch's launcher starts the
    processes, also where there is neither a GPU nor a cluster.
    """
    options = resources_table().pod_of(function.__name__).options(processes)
    if processes * nodes > 1:
        from flytekitplugins.kfpytorch import Elastic

        # The pod sets its shared memory itself.
        options["task_config"] = Elastic(nnodes=nodes, nproc_per_node=processes, increase_shared_mem=False)
        # The container imports the task's module again and must have the same configuration.
        options["environment"] = {"HAND1000_PROCESSES": str(processes), "HAND1000_NODES": str(nodes)}
    return task(function, cache=cache, enable_deck=enable_deck, deck_fields=DECK_FIELDS, **options)


def shard_label(inputs: Mapping[str, Any]) -> str:
    """The label of the input `shard`, with `shards` if there is one; "" without either."""
    if "shard" not in inputs:
        return ""
    of_shards = f" of {inputs['shards']}" if "shards" in inputs else ""
    return f"shard {inputs['shard'] + 1}{of_shards}"


@dataclass(frozen=True, kw_only=True)
class artifact_task:  # noqa: N801 (a decorator)
    """Make a Flyte task of `body(context, *inputs) -> None`, which fills `context.output_dir`.

    Flyte sees the inputs and a `run: RunContext`. The cache key of the artifact is made of every input
    (`cache_key_of`); what deviates is named here.

    Attributes:
        key_by: By the name of an input, the function of its value that enters the key in its place.
        excluded: Inputs that do not decide the content of the artifact.
        load: Takes the run and the inputs and returns what else the body needs and the result depends on, by name:
            plain data, or objects with `cache_key_fields()`. The body finds it in `context.loaded`.
        finish: Called with the artifact, also when an earlier run made it; returns the outputs of the task.
        label: Takes the inputs and returns what distinguishes this piece of the task's work in progress lines.
        deck: HTML file of the artifact that the task shows as its Deck and names on stdout.
        summary: Text file of the artifact that the task prints.
        processes: Processes on each machine, one GPU each.
        nodes: Machines.
        flyte_cached: Whether Flyte may return an earlier artifact for the same inputs without starting the task: not
            if `load` reads what may change behind the same input, such as the images at an address.
    """

    key_by: Mapping[str, Callable[[Any], Any]] = dataclasses.field(default_factory=dict)
    excluded: Sequence[str] = ()
    load: Callable[[RunContext, Mapping[str, Any]], Mapping[str, Any]] = lambda run, inputs: {}
    finish: Callable[[TaskResult], Any] | None = None
    label: Callable[[Mapping[str, Any]], str] = shard_label
    deck: str = ""
    summary: str = ""
    processes: int = 1
    nodes: int = 1
    flyte_cached: bool = True

    def __call__(self, body: Callable[..., None]) -> Any:
        """Make the task.

        Raises:
            TypeError: `key_by` or `excluded` names no input.
        """
        name = body.__name__
        inputs = {name: kind for name, kind in get_type_hints(body).items() if name not in ("context", "return")}
        if unknown := {*self.key_by, *self.excluded} - set(inputs):
            raise TypeError(f"{name}: has no input {', '.join(sorted(unknown))}")
        returned = get_type_hints(self.finish, include_extras=True)["return"] if self.finish else Artifact
        annotations = inputs | {"run": RunContext, "return": returned}
        # flytekit takes a partial for a function at module level that returns something; torch's launcher pickles it.
        function: Any = functools.update_wrapper(functools.partial(run_artifact_task, self, body), body)
        function.__wrapped__ = run_artifact_task
        function.__annotations__ = annotations
        parameters = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind)
            for name, kind in annotations.items()
            if name != "return"
        ]
        function.__signature__ = inspect.Signature(parameters, return_annotation=returned)
        cache = self.flyte_cached and Cache(version=task_version(name), ignored_inputs=("run",))
        return _flyte_task(
            function, cache=cache, enable_deck=bool(self.deck), processes=self.processes, nodes=self.nodes
        )

    def cache_key(
        self, body: Callable[..., None], inputs: Mapping[str, Any], loaded: Mapping[str, Any]
    ) -> dict[str, Any]:
        """All that decides the artifact."""
        annotations = get_type_hints(body, include_extras=True)
        fields = {
            name: self.key_by[name](value) if name in self.key_by else cache_key_of(value, annotations[name])
            for name, value in inputs.items()
            if name not in self.excluded
        }
        return fields | {name: cache_key_of(value) for name, value in loaded.items()}


@report_user_errors
def run_artifact_task(work: artifact_task, body: Callable[..., None], run: RunContext, **inputs: Any) -> Any:
    """Run a task: the body only where its artifact is missing, the rest always."""
    loaded = work.load(run, inputs)
    artifact = run_cached(
        body.__name__,
        run,
        work.cache_key(body, inputs, loaded),
        lambda context: body(context, **inputs),
        label=work.label(inputs),
        loaded=loaded,
        sources=sorted({artifact_name(artifact) for artifact in iter_artifacts(list(inputs.values()))}),
    )
    if not (work.finish or work.deck or work.summary):
        return artifact
    folder = run.open_store().fetch(address(artifact))
    if work.summary:
        print(f"\n{(folder / work.summary).read_text()}")
    if work.deck:
        print(f"report      {address(artifact)}/{work.deck}", flush=True)
        Deck(body.__name__, (folder / work.deck).read_text())
    return work.finish(TaskResult(artifact, folder, run, inputs, loaded)) if work.finish else artifact


def iter_artifacts(value: Any) -> Iterator[FlyteDirectory]:
    """Yield the artifacts in an input: the value itself, or in its lists and mappings."""
    if isinstance(value, FlyteDirectory):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from iter_artifacts(item)


def task_version(task_name: str) -> str:
    """The version of what one task computes."""
    return f"{CACHE_VERSION}.{TASK_REVISIONS[task_name]}" if task_name in TASK_REVISIONS else CACHE_VERSION


def config_digest(settings: Settings, base_model: str) -> str:
    """Digest of what a model depends on besides its data."""
    return digest_json([CACHE_VERSION, TASK_REVISIONS, settings.recipe(), model_identity(base_model)])


def cache_key_of(value: Any, annotation: Any = None) -> Any:
    """The part of a cache key that `value` is.

    It is the result of a function in the value's annotation, such as `Annotated[str, model_identity]`; the digest of an
    artifact; what an object's `cache_key_fields()` returns; the fields of a dataclass; or the value itself.
    """
    for function in filter(callable, getattr(annotation, "__metadata__", ())):
        return function(value)
    if isinstance(value, FlyteDirectory):
        return digest(value)
    if hasattr(value, "cache_key_fields"):
        return value.cache_key_fields()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return [[name, cache_key_of(item)] for name, item in sorted(value.items())]
    return [cache_key_of(item) for item in value] if isinstance(value, list | tuple) else value


def run_cached(
    task_name: str,
    run: RunContext,
    key: Mapping[str, Any],
    body: Callable[[TaskContext], None],
    *,
    label: str = "",
    loaded: Mapping[str, Any] | None = None,
    sources: Sequence[str] = (),
) -> FlyteDirectory:
    """The artifact that `body` makes, or the one that it made before for the same key.

    Args:
        task_name: Name of the task in `<root>/results/`, and of its child run in MLflow.
        run: The run of the workflow.
        key: All that decides the result.
        body: Fills `context.output_dir`.
        label: Distinguishes this piece of the task's work in progress lines.
        loaded: Becomes `context.loaded`.
        sources: Kinds and digests of the artifacts that `body` reads; the record of the result keeps them, so that
            what was made from an artifact can be found.

    Raises:
        Hand1000Error: What `body` or the storage raises; nothing incomplete is ever published.
    """
    store = run.open_store()
    digest = digest_json([task_version(task_name), key])
    checkpoint = store.checkpoint(task_name, digest)
    record = store.get_result(task_name, digest)
    make_context = functools.partial(TaskContext, run=run, checkpoint=checkpoint, loaded=loaded or {})
    if os.environ.get("RANK", "0") != "0":
        # torch's launcher started this process beside the main one, which alone reports, saves and publishes.
        with store.workspace() as workspace:
            if record is None:
                (workspace / "out").mkdir()
                body(make_context(output_dir=workspace / "out", on_progress=noop_callback))
            return FlyteDirectory(str(workspace), remote_directory=False)
    part, title = (label or "all").replace(" ", "_"), f"{task_name} {label}".strip()
    is_recorded = record is not None and _is_recorded(run, task_name, part, record["address"])
    child = run.open_recorder().child_run(task_name) if run.run_id and not is_recorded else None
    if record is None:
        raise_if_interrupted()
        logger.info("%s: started", title)
        started = time.monotonic()
        on_display = functools.partial(_record_progress, child) if child else None
        with store.workspace() as workspace:
            output_dir = workspace / "out"
            output_dir.mkdir()
            reset_peak_memory()
            with _unfinished_marked(run, child), reused_heap():
                body(make_context(output_dir=output_dir, on_progress=ProgressBar(title, on_display=on_display)))
            peak = peak_memory()
            published = store.publish(task_name, output_dir)
        seconds = round(time.monotonic() - started, 3)
        record = {"address": published, "seconds": seconds, "peak_bytes": peak, "sources": list(sources)}
        store.put_result(task_name, digest, record)
        logger.info("%s: done in %.1f s", title, seconds)
    else:
        logger.info("%s: already there", title)
        store.remove_abandoned()
    checkpoint.clear()  # Also what a process left that was killed before it came here.
    if child is not None:
        _log_record(child, part, record, store)
    return FlyteDirectory(record["address"], remote_directory=False)


def _is_recorded(run: RunContext, task_name: str, part: str, published: str) -> bool:
    """Whether MLflow has an artifact as the result of this part of a task."""
    recorded = run.find_recorded()
    return recorded is not None and recorded.holds(task_name, part, portable_address(published))


def _record_progress(child: "RunRecorder", step: int, metrics: Mapping[str, float]) -> None:
    child.send_heartbeat()
    if metrics:
        child.log_history([{"step": step, **metrics}])


@contextlib.contextmanager
def _unfinished_marked(run: RunContext, child: "RunRecorder | None") -> Iterator[None]:
    """Mark the MLflow runs of a body that ends early: KILLED after a signal, FAILED after an error."""
    try:
        yield
    except BaseException as error:
        if child is not None:
            # The error itself matters more than an MLflow that does not answer either.
            with contextlib.suppress(Hand1000Error), uninterrupted_step():
                status: Any = "FAILED" if isinstance(error, Exception) else "KILLED"
                child.finish(status)
                run.open_recorder().finish(status)
        raise


def _log_record(child: "RunRecorder", part: str, record: Mapping[str, Any], store: "ArtifactStore") -> None:
    """Log an artifact's history, time and memory to its task's child run, whether this or an earlier run made it."""
    from hand1000.registry.versions import ARTIFACTS

    history = store.fetch(record["address"]) / "history.jsonl"
    if history.is_file():
        child.log_history(row for _, row in read_jsonl(history))
    child.log_seconds(part, record["seconds"])
    if "peak_bytes" in record:
        child.log_peak(part, record["peak_bytes"])
    child.set_tags({f"{ARTIFACTS}{part}": portable_address(record["address"])})
    child.finish()
