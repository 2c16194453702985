"""What a task works with: the run it belongs to, its artifacts, and the services that its body uses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from flytekit import HashMethod
from flytekit.types.directory import FlyteDirectory
from pydantic import BaseModel, ConfigDict

from hand1000.config.settings import ComputeSettings
from hand1000.core.progress import CheckpointStore, ProgressCallback
from hand1000.storage.hub import model_identity

if TYPE_CHECKING:
    from hand1000.registry.connection import Patience, Tracking
    from hand1000.registry.recorded import RecordedRun
    from hand1000.registry.recorder import Recording, RunRecorder
    from hand1000.registry.tracking import RunTracker
    from hand1000.registry.versions import RegisteredVersion
    from hand1000.storage.artifacts import ArtifactStore
    from hand1000.training.context import TrainContext

Artifact = Annotated[FlyteDirectory, HashMethod(lambda directory: directory.path.rsplit("/", 1)[-1])]
"""A directory under the artifact root. Its name is the digest of its content, which Flyte's cache takes as its hash."""


def address(artifact: FlyteDirectory) -> str:
    """The address under which an artifact was published."""
    return artifact.remote_source or str(artifact.path)


def portable_address(artifact: FlyteDirectory | str) -> str:
    """The address of an artifact for a record that outlives a move of its root: relative if the root is a folder."""
    text = artifact if isinstance(artifact, str) else address(artifact)
    return text if "://" in text else "/".join(text.rstrip("/").rsplit("/", 3)[1:])


def digest(artifact: FlyteDirectory) -> str:
    """The content digest of an artifact, the last part of its address."""
    return address(artifact).rstrip("/").rsplit("/", 1)[-1]


def artifact_name(artifact: FlyteDirectory) -> str:
    """The kind and digest of an artifact, `<kind>/<sha256>`, which are the same wherever the root lies."""
    return "/".join(address(artifact).rstrip("/").rsplit("/", 2)[1:])


BaseModelAddress = Annotated[str, model_identity]
"""A diffusers folder, an `s3://` address, or a hub id with its revision; a cache key has the model's identity."""


class RunContext(BaseModel):
    """Where a workflow run keeps its artifacts, and where it is tracked.

    Attributes:
        root: The artifact root, a folder or `s3://bucket/prefix`.
        run_id: Key of the MLflow parent run; "" tracks nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    root: str
    run_id: str = ""

    def open_store(self) -> "ArtifactStore":
        """The artifact store at the root."""
        from hand1000.storage.artifacts import open_store

        return open_store(self.root)

    def connect_mlflow(self, patience: "Patience | None" = None) -> "Tracking":
        """The MLflow server that the environment names, else one embedded in a local root or in `artifacts` here."""
        from hand1000.registry.connection import PATIENT, connect

        return connect(self.mlflow_folder, patience=patience or PATIENT)

    @property
    def mlflow_folder(self) -> Path:
        """The folder of an embedded MLflow."""
        return Path("artifacts" if "://" in self.root else self.root)

    def find_recorded(self) -> "RecordedRun | None":
        """What MLflow is known to hold of this run, if that is its end; None if MLflow itself must be asked."""
        from hand1000.registry.connection import locate_embedded
        from hand1000.registry.recorded import find_recorded_run

        embedded = locate_embedded(self.mlflow_folder) if self.run_id else None
        return find_recorded_run(embedded.database, self.run_id) if embedded and embedded.database else None

    def find_version(self, uri: str) -> "RegisteredVersion":
        """The registered version at an address such as `models:/hand1000-four/1`.

        Raises:
            Hand1000Error: There is none.
        """
        from hand1000.registry.load import find_version

        recorded = self.find_recorded()
        champion = recorded.find_champion() if recorded else None
        return champion if champion and champion.uri == uri else find_version(uri, registry=self.connect_mlflow())

    def open_tracker(self, name: str = "") -> "RunTracker":
        """The MLflow parent run; a new one has the key as its name, or `name`. What waited for MLflow is sent first.

        Raises:
            TransientError: MLflow does not answer.
        """
        from hand1000.registry.tracking import EXPERIMENT, RunTracker

        tracking = self.connect_mlflow()
        self.recording.send(tracking)
        return RunTracker(EXPERIMENT, self.run_id, tracking, name=name)

    def open_recorder(self) -> "RunRecorder":
        """The MLflow parent run for records that wait on disk while MLflow is away."""
        from hand1000.registry.recorder import RunRecorder

        return RunRecorder(self.recording, self.run_id)

    @property
    def recording(self) -> "Recording":
        """Where this process records the runs of the artifact root."""
        from hand1000.registry.connection import IMPATIENT
        from hand1000.registry.recorder import Recording
        from hand1000.registry.unsent import Outbox

        store = self.open_store()
        if store.root not in _recordings:
            _recordings[store.root] = Recording(Outbox(store.backend), lambda: self.connect_mlflow(IMPATIENT))
        return _recordings[store.root]


_recordings: "dict[str, Recording]" = {}


@dataclass(frozen=True)
class TaskContext:
    """The services that a task's body uses while it makes its artifact.

    Attributes:
        run: The run of the workflow.
        output_dir: The empty folder that the body fills.
        checkpoint: The durable store for the state of this piece of work.
        on_progress: Shows the progress and, in a tracked run, logs the metrics live.
        loaded: What the task's `load` returned.
    """

    run: RunContext
    output_dir: Path
    checkpoint: CheckpointStore
    on_progress: ProgressCallback
    loaded: Mapping[str, Any]

    def download(self, artifact: FlyteDirectory, *, recheck: bool = False) -> Path:
        """The local folder of a verified artifact; one on `s3://` is downloaded once per process.

        With `recheck` files are read that this process has verified before, too.
        """
        return self.run.open_store().fetch(address(artifact), recheck=recheck)

    def download_all(self, artifacts: Sequence[FlyteDirectory]) -> list[Path]:
        """The local folders of a map task's artifacts."""
        return [self.download(artifact) for artifact in artifacts]

    def scratch_dir(self, name: str) -> Path:
        """A path beside `output_dir` for files that are not part of the artifact."""
        return self.output_dir.with_name(f"scratch-{name}")

    def train_context(self, seed: int, compute: ComputeSettings | None = None) -> "TrainContext":
        """The context of a training that saves its state and reports its progress here."""
        from hand1000.training.context import FULL_PRECISION, TrainContext

        return TrainContext(
            seed=seed, compute=compute or FULL_PRECISION, checkpoint=self.checkpoint, on_progress=self.on_progress
        )


@dataclass(frozen=True)
class TaskResult:
    """A task's artifact, made now or before, with its local folder, and what it was made from."""

    artifact: FlyteDirectory
    folder: Path
    run: RunContext
    inputs: Mapping[str, Any]
    loaded: Mapping[str, Any]


def shard_slice(count: int, unit: int, shard: int, shards: int) -> slice:
    """The items of one shard of `count`: whole batches of `unit` in a row, so that no batch is cut in two."""
    batches = -(-count // unit)
    first, last = batches * shard // shards, batches * (shard + 1) // shards
    return slice(min(first * unit, count), min(last * unit, count))
