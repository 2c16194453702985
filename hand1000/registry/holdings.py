"""What a registry holds, as far as retention asks: weights and who needs them, artifacts of runs, runs at work."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hand1000.core.errors import Hand1000Error
from hand1000.registry.connection import Tracking, read_pages
from hand1000.registry.removed import measure_weights
from hand1000.registry.tracking import PARENT
from hand1000.registry.version_use import VersionUse
from hand1000.registry.versions import ARTIFACTS, CANDIDATES, MODEL_DIGEST, TRAINED_ON
from hand1000.storage.inventory import ARTIFACT, Piece

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Run
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

_ARTIFACT_NAME = re.compile(r".*(?:^|/)artifacts/([a-z][a-z0-9_-]*/[0-9a-f]{64})/?")
_STALE_SECONDS = 7 * 86_400.0
"""A run without a sign of life for this long was killed, whatever its status says."""


@dataclass(frozen=True)
class Weights:
    """The weights of a logged model.

    Attributes:
        name: Address of the first version that refers to them, or MLflow's id where none does.
        model_id: MLflow's id.
        location: Address of the logged model's files.
        versions: All versions that refer to them.
        size: Bytes; 0 once they are removed.
        since: When they were made or last in use, in seconds since 1970.
        needed_for: Why they are kept whatever their age; "" if their age decides.
        waits: Whether a candidate of them waits for a decision.
        artifacts: Kinds and digests of the artifacts that they were made and judged from.
    """

    name: str
    model_id: str
    location: str
    versions: tuple["ModelVersion", ...]
    size: int
    since: float
    needed_for: str = ""
    waits: bool = False
    artifacts: frozenset[str] = frozenset()

    @property
    def registrations(self) -> list[str]:
        """The artifacts by which a repeated run finds these weights registered."""
        return [name for name in self.artifacts if name.startswith("register/")]


@dataclass(frozen=True)
class Holdings:
    """What retention needs to know of a registry.

    Attributes:
        weights: All weights, those of versions and those whose registration never finished.
        recorded: The artifacts that any run recorded.
        running_artifacts: Those of the runs at work.
        running_since: Start of the oldest run at work, in seconds since 1970; None if none is.
    """

    weights: tuple[Weights, ...]
    recorded: frozenset[str] = frozenset()
    running_artifacts: frozenset[str] = frozenset()
    running_since: float | None = None

    def check_belongs_to(self, root: str, pieces: Iterable[Piece]) -> None:
        """Raise a Hand1000Error if no run of this registry made any of the artifacts below `root`."""
        names = {piece.name for piece in pieces if piece.role == ARTIFACT}
        if names and not names & self.recorded:
            raise Hand1000Error(
                f"{root}: no run of this registry made any of its {len(names)} artifacts; "
                "name the registry of its models with --registry"
            )


@dataclass(frozen=True)
class Workflow:
    """The parent run of a workflow run with its children."""

    runs: tuple["Run", ...]

    @property
    def artifacts(self) -> frozenset[str]:
        """Kinds and digests of the artifacts that the runs recorded."""
        values = [value for run in self.runs for tag, value in run.data.tags.items() if tag.startswith(ARTIFACTS)]
        return frozenset(match[1] for match in map(_ARTIFACT_NAME.fullmatch, values) if match)

    def is_at_work(self, now: float) -> bool:
        """Whether a run is running, and showed a sign of life in the last week."""
        signs = [time or 0 for run in self.runs for time in (run.info.start_time, run.info.end_time)]
        is_running = any(run.info.status == "RUNNING" for run in self.runs)
        return is_running and max(signs) / 1000 > now - _STALE_SECONDS

    @property
    def start(self) -> float:
        """When the first run started, in seconds since 1970."""
        return min(run.info.start_time for run in self.runs) / 1000


def read_holdings(tracking: Tracking, *, now: float) -> Holdings:
    """Read a registry and all its runs.

    Args:
        tracking: Connection to MLflow.
        now: Seconds since 1970.

    Raises:
        Hand1000Error: MLflow does not answer, or hides a model from this account.
    """
    client = tracking.client
    with tracking.readable_errors():
        experiments = [experiment.experiment_id for experiment in read_pages(client.search_experiments)]
        workflows = read_workflows(tracking, experiments)
        models = list(read_pages(client.search_registered_models))
        versions = list(read_pages(client.search_model_versions))
        logged = list(read_pages(client.search_logged_models, experiment_ids=experiments)) if experiments else []
        _check_visible(tracking, models)
    at_work = [workflow for workflow in set(workflows.values()) if workflow.is_at_work(now)]
    use = VersionUse(models, versions)
    by_model = _group_by_logged_model(versions, {model.artifact_location: model.model_id for model in logged})
    weights = [
        _describe(tracking, model, by_model[model.model_id], use, workflows)
        for model in logged
        if by_model[model.model_id] or MODEL_DIGEST in model.tags
    ]
    known = {model.model_id for model in logged}
    # Versions whose files are elsewhere, such as those that were registered by hand.
    weights += [
        _describe(tracking, None, [version], use, workflows)
        for model_id, others in by_model.items()
        if model_id not in known
        for version in others
    ]
    return Holdings(
        weights=tuple(weights),
        recorded=frozenset(name for workflow in workflows.values() for name in workflow.artifacts),
        running_artifacts=frozenset(name for workflow in at_work for name in workflow.artifacts),
        running_since=min((workflow.start for workflow in at_work), default=None),
    )


class CurrentUse:
    """What is in use at the moment of each question.

    The versions, of which there may be thousands, are read again only after a model has got one or lost one.
    """

    def __init__(self, tracking: Tracking) -> None:
        self._tracking = tracking
        self._read_at: list[tuple] | None = None
        self._versions: list[ModelVersion] = []

    def is_needed(self, weights: Weights) -> bool:
        """Return whether a version of these weights is in use, or waits for a decision, at this moment."""
        with self._tracking.readable_errors():
            models = list(read_pages(self._tracking.client.search_registered_models))
            state = [(model.name, model.last_updated_timestamp, model.creation_timestamp) for model in models]
            if state != self._read_at:
                self._versions = list(read_pages(self._tracking.client.search_model_versions))
                self._read_at = state
        use = VersionUse(models, self._versions)
        groups = _group_by_logged_model(self._versions, {weights.location: weights.model_id})
        return any(map(use.reasons, groups[weights.model_id]))


def _describe(
    tracking: Tracking,
    model: "LoggedModel | None",
    versions: Sequence["ModelVersion"],
    use: VersionUse,
    workflows: Mapping[str, Workflow],
) -> Weights:
    sources = [version.run_id for version in versions] + ([model.source_run_id] if model else [])
    runs = {run_id for run_id in sources if run_id}
    artifacts = {name for run_id in runs if run_id in workflows for name in workflows[run_id].artifacts}
    for version in versions:
        # Also where the run is deleted, or was resumed with other results.
        for tag, kind in TRAINED_ON.items():
            if tag in version.tags:
                artifacts.add(f"{kind}/{version.tags[tag]}")
    reasons = sorted(set().union(*map(use.reasons, versions)))
    first = min(versions, key=lambda version: (version.creation_timestamp, version.name), default=None)
    made = [model.creation_timestamp / 1000] if model else []
    return Weights(
        name=f"models:/{first.name}/{first.version}" if first else model.model_id if model else "",
        model_id=model.model_id if model else "",
        location=model.artifact_location if model else "",
        versions=tuple(versions),
        size=measure_weights(tracking, model.artifact_location) if model else 0,
        since=max([*made, *map(use.since, versions)]),
        needed_for="; ".join(reasons),
        waits=any(map(use.waits, versions)),
        artifacts=frozenset(artifacts),
    )


def read_workflows(tracking: Tracking, experiments: list[str]) -> dict[str, Workflow]:
    """Return the workflow run that each MLflow run belongs to, by the id of the run."""
    runs = list(read_pages(tracking.client.search_runs, experiment_ids=experiments)) if experiments else []
    families: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        families[run.data.tags.get(PARENT, run.info.run_id)].append(run)
    workflows = {parent: Workflow(tuple(family)) for parent, family in families.items()}
    return {run.info.run_id: workflows[run.data.tags.get(PARENT, run.info.run_id)] for run in runs}


def _group_by_logged_model(
    versions: Sequence["ModelVersion"], locations: Mapping[str, str]
) -> dict[str, list["ModelVersion"]]:
    """The versions that refer to each logged model, by its id; `locations` has the ids by the address of the files."""
    by_address = {f"models:/{version.name}/{version.version}": version for version in versions}
    by_location = {location.rstrip("/"): model_id for location, model_id in locations.items()}

    def resolve(version: "ModelVersion", depth: int = 0) -> str | None:
        if version.model_id:
            return str(version.model_id)
        source = (version.source or "").rstrip("/")
        if source in by_address and depth < len(versions):  # A copy of another version.
            return resolve(by_address[source], depth + 1)
        return by_location.get(source, source.removeprefix("models:/") if source.startswith("models:/m-") else None)

    groups: dict[str, list[ModelVersion]] = defaultdict(list)
    for version in versions:
        groups[resolve(version) or ""].append(version)
    return groups


def _check_visible(tracking: Tracking, models: Iterable["RegisteredModel"]) -> None:
    """Raise if a reviewed model exists that this account may not read: its champion would look unneeded."""
    from mlflow.exceptions import MlflowException

    names = {model.name for model in models}
    for name in sorted(names):
        reviewed = name.removesuffix(CANDIDATES)
        if reviewed not in names:
            try:
                tracking.client.get_registered_model(reviewed)
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    continue
            raise Hand1000Error(f"{reviewed}: this account may not read it, so gc cannot know its champion")
