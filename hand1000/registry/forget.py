"""The removal of people and images from an artifact root and its MLflow, which `hand1000 data forget` carries out.

The exclusion list is written first, so that no later dataset brings them back, and the datasets that hold them go last,
so that a run that was interrupted finds again what is left. Models stay: they are listed, with how to retrain them.
"""

import contextlib
import datetime
import os
import shlex
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hand1000.core.errors import one_line, translate_write_errors
from hand1000.data.excluded_images import (
    ExcludedImages,
    caption_cache_keys,
    copy_without,
    find_excluded_images,
    gestures_of,
    mentions_any,
    source_digests,
)
from hand1000.data.formats import is_image
from hand1000.registry.connection import Tracking, read_pages
from hand1000.registry.holdings import Holdings, Weights, Workflow, read_holdings, read_workflows
from hand1000.registry.removed import remove_files
from hand1000.registry.unsent import FOLDER as UNSENT
from hand1000.registry.versions import DATASET, FORGOTTEN
from hand1000.storage.artifacts import ArtifactStore
from hand1000.storage.cache import NODE_CACHE_VARIABLE, remove_cached_keys
from hand1000.storage.digests import DamagedError, Manifest
from hand1000.storage.exclusions import Exclusions, add_exclusions
from hand1000.storage.inventory import ARTIFACT, CHECKPOINT, Piece, list_pieces
from hand1000.storage.keys import safe_join
from hand1000.storage.lineage import Lineage, read_lineage

if TYPE_CHECKING:
    from mlflow.entities import Run

PUBLISHED = "publish"
"""Kind of the artifacts that are replaced by a version without the images."""


FIGURES = frozenset({"gates.json"})
"""Files of a run that show no image; they stay."""


@dataclass(frozen=True)
class TrainedModel:
    """A registered model that was trained on the images.

    Attributes:
        name: Address of its first version.
        state: Why it is kept, or that nobody needs it.
        size: Bytes of its weights; 0 once they are removed.
        command: Shell command that trains its successor; "" if its run is gone.
    """

    name: str
    state: str
    size: int
    command: str


@dataclass(frozen=True)
class ForgetPlan:
    """What is removed, and what cannot be.

    Attributes:
        exclusions: The exclusion list that decides.
        holders: Artifacts that hold the images, with the images.
        derived: Artifacts that were made from those, in the order of their removal.
        checkpoints: States of unfinished tasks, of which nothing says what they were made from.
        cache_keys: Keys of the images and captions in the caches.
        runs: MLflow runs whose files and versions are affected.
        models: Models that were trained on the images, now or before an earlier call.
        unreachable: What is left, by name, with what a person can do.
    """

    exclusions: Exclusions
    holders: Mapping[Piece, ExcludedImages]
    derived: tuple[Piece, ...]
    checkpoints: tuple[Piece, ...]
    cache_keys: frozenset[str]
    runs: tuple["Run", ...]
    models: tuple[TrainedModel, ...]
    unreachable: tuple[str, ...]

    @property
    def num_images(self) -> int:
        """Number of image files in the datasets that hold them."""
        return sum(len(images.names) for images in self.holders.values())


def make_forget_plan(
    store: ArtifactStore, tracking: Tracking | None, exclusions: Exclusions, *, now: float
) -> ForgetPlan:
    """Find the images of excluded people, what was made from them, and the models that were trained on them.

    Args:
        store: The artifact root.
        tracking: MLflow of the root's models; None if there is none.
        exclusions: The exclusion list with everybody whom it shall hold.
        now: Seconds since 1970.

    Raises:
        Hand1000Error: Storage or MLflow refuse.
    """
    pieces = list_pieces(store)
    artifacts = {piece.name: piece for piece in pieces if piece.role == ARTIFACT}
    images = {piece: find_excluded_images(store, piece, exclusions) for piece in artifacts.values()}
    holders = {piece: found for piece, found in images.items() if found}
    holdings = read_holdings(tracking, now=now) if tracking else Holdings(())
    workflows = _list_workflows(tracking) if tracking else []
    lineage = read_lineage(store, pieces)
    names = _find_derived(store, artifacts, holders, lineage, workflows)
    runs = [run for workflow in workflows if workflow.artifacts & names for run in workflow.runs]
    trained = [weights for weights in holdings.weights if weights.artifacts & names or _is_marked(weights)]
    derived = lineage.sort_derived_first([name for name in names if name in artifacts])
    return ForgetPlan(
        exclusions,
        holders,
        tuple(artifacts[name] for name in derived if artifacts[name] not in holders),
        tuple(piece for piece in pieces if piece.role == CHECKPOINT) if holders else (),
        frozenset(_find_cache_keys(store, artifacts, holders, names)),
        tuple(runs),
        tuple(_describe_model(weights, workflows, store.root) for weights in trained),
        tuple(_list_unreachable(store, tracking, artifacts, holdings, trained, workflows)),
    )


def carry_out_forget(
    plan: ForgetPlan,
    store: ArtifactStore,
    tracking: Tracking | None,
    people: Sequence[str],
    images: Sequence[str],
    on_done: Callable[[str], None],
) -> None:
    """Remove what a plan says; interrupted, the same call finishes it.

    Args:
        plan: The plan.
        store: The artifact root.
        tracking: Its MLflow.
        people: Ids for the exclusion list.
        images: Names of images for the exclusion list, from `parse_image_id`.
        on_done: Called with one line for each replaced dataset.

    Raises:
        Hand1000Error: Storage or MLflow refuse; what is removed by then stays removed.
    """
    exclusions = add_exclusions(store.backend, people, images)
    for piece in plan.checkpoints:
        _remove(store, piece)
    remove_cached_keys(store.backend, plan.cache_keys)
    if plan.holders:
        # Review pages and images that wait for MLflow, of whichever run.
        for file in list(store.backend.list_files(UNSENT)):
            if file.key.endswith(".bin"):
                store.backend.remove(file.key)
    if tracking:
        _clear_runs(tracking, plan.runs)
    for piece in plan.derived:
        _remove(store, piece)
    for piece in plan.holders:
        if piece.kind == PUBLISHED:
            on_done(_replace(store, piece, exclusions))
        _remove(store, piece)
    store.remove_abandoned()


def _find_derived(
    store: ArtifactStore,
    artifacts: Mapping[str, Piece],
    holders: Mapping[Piece, ExcludedImages],
    lineage: Lineage,
    workflows: Collection[Workflow],
) -> set[str]:
    """Return the names of the holders and of everything that was made from them."""
    names = lineage.add_derived(piece.name for piece in holders)
    unknown = lineage.unknown - {piece.name for piece in holders}
    file_names = {name for images in holders.values() for name in images.file_names}
    if unknown and holders:
        # An earlier hand1000 did not record what its artifacts were made from.
        names |= {name for name in unknown if mentions_any(store, artifacts[name], file_names)}
        for workflow in workflows:
            if workflow.artifacts & names:
                names |= workflow.artifacts & unknown
    return lineage.add_derived(names)


def _find_cache_keys(
    store: ArtifactStore, artifacts: Mapping[str, Piece], holders: Mapping[Piece, ExcludedImages], names: set[str]
) -> set[str]:
    keys: set[str] = set()
    gestures: dict[str, str] = {}
    for piece, images in holders.items():
        manifest = _read_manifest(store, piece)
        keys |= {entry.sha256 for entry in manifest.files if entry.name in images.names} if manifest else set()
        gestures |= gestures_of(store, piece, images.names)
        # The features of images that `hand1000 evaluate` has read from a folder.
        keys |= source_digests(store, piece, images.names)
    for name in names & set(artifacts):
        # The features of the images that a model generated.
        manifest = None if artifacts[name] in holders else _read_manifest(store, artifacts[name])
        if manifest:
            keys |= {entry.sha256 for entry in manifest.files if is_image(entry.name)}
        if artifacts[name].kind == "caption_images":
            with contextlib.suppress(ValueError, DamagedError):
                keys |= caption_cache_keys(store, artifacts[name], gestures)
    return keys


def _read_manifest(store: ArtifactStore, piece: Piece) -> Manifest | None:
    try:
        data = store.backend.read(f"{piece.key}.json")
        return Manifest.model_validate_json(data) if data else None
    except (ValueError, DamagedError):
        return None


def _list_workflows(tracking: Tracking) -> list[Workflow]:
    with tracking.readable_errors():
        experiments = [item.experiment_id for item in read_pages(tracking.client.search_experiments)]
        return list(set(read_workflows(tracking, experiments).values()))


def _is_marked(weights: Weights) -> bool:
    return any(FORGOTTEN in version.tags for version in weights.versions)


def _describe_model(weights: Weights, workflows: Collection[Workflow], root: str) -> TrainedModel:
    run_ids = {version.run_id for version in weights.versions}
    command = next(
        (retrain_command(run.data.params, root) for workflow in workflows for run in workflow.runs
         if run.info.run_id in run_ids and "gesture" in run.data.params),
        "",
    )  # fmt: skip
    unneeded = "out of use; `hand1000 gc` removes its weights" if weights.size else "its weights are removed"
    return TrainedModel(weights.name, weights.needed_for or unneeded, weights.size, command)


def retrain_command(params: Mapping[str, str], root: str) -> str:
    """Return the command that trains on the inputs of an MLflow run again, without whom the exclusion list holds."""
    arguments = {name: params[name] for name in ("gesture", "images", "data", "base_model") if name in params}
    options = [word for name, value in {**arguments, "root": root}.items() for word in (f"--{name}", value)]
    inputs = ["--inputs-file", "workflows/configs/retrain.yaml"]
    return shlex.join(["pyflyte", "run", "workflows/retrain.py", "retrain", *inputs, *options])


def _list_unreachable(
    store: ArtifactStore,
    tracking: Tracking | None,
    artifacts: Mapping[str, Piece],
    holdings: Holdings,
    trained: Collection[Weights],
    workflows: Collection[Workflow],
) -> list[str]:
    lines = [
        f"{weights.name}: may have been trained on them: its dataset is not kept below {store.root}"
        for weights in holdings.weights
        if weights not in trained and weights.versions and not _has_dataset(weights, artifacts)
    ]
    if holdings.running_since is not None:
        lines.append("a run is at work and may publish them again; run `hand1000 data forget` again once it has ended")
    if tracking is None:
        lines.append("no MLflow was found, so no model is listed; name it with --registry")
    sources = {run.data.params["data"] for workflow in workflows for run in workflow.runs if "data" in run.data.params}
    lines += [f"{source}: a source of images; remove them there" for source in sorted(sources - {"sample"})]
    lines += [
        *store.backend.describe_kept_copies(),
        "copies elsewhere: datasets on the hub (`hand1000 data push`), copies of root and registry, backups, exports, "
        f"node caches ({NODE_CACHE_VARIABLE}) of other machines, logs",
        "the weights of the models above, and captions of people as example prompts in model cards",
    ]
    return lines


def _has_dataset(weights: Weights, artifacts: Mapping[str, Piece]) -> bool:
    tags = {version.tags[DATASET] for version in weights.versions if DATASET in version.tags}
    return all(f"prepare_data/{digest}" in artifacts for digest in tags)


def _clear_runs(tracking: Tracking, runs: Sequence["Run"]) -> None:
    """Remove the files of runs that may show images, and mark runs and versions."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    client = tracking.client
    with tracking.readable_errors():
        for run in runs:
            # The versions first: they are found again by their run as long as it has files.
            for version in read_pages(client.search_model_versions, f"run_id = '{run.info.run_id}'"):
                client.set_model_version_tag(version.name, str(version.version), FORGOTTEN, now)
            remove_files(tracking, [run.info.artifact_uri], FIGURES)
            client.set_tag(run.info.run_id, FORGOTTEN, now)


def _replace(store: ArtifactStore, piece: Piece, exclusions: Exclusions) -> str:
    """Publish a dataset without the images; return one line about it."""
    old = f"{store.root}/{piece.key}"
    try:
        folder = store.fetch(old)
        with store.workspace() as workspace:
            if not copy_without(folder, workspace / "out", exclusions):
                return f"withdrawn {old}: a split has no other image"
            return f"replaced {old} by {store.publish(PUBLISHED, workspace / 'out')}"
    except DamagedError as error:
        return f"withdrawn {old}: {one_line(error)}"


def _remove(store: ArtifactStore, piece: Piece) -> None:
    # What names its sources goes last: if this is interrupted, the next plan finds the rest.
    for key in (*piece.records, piece.key, *piece.traces):
        store.backend.remove(key)
    if root := os.environ.get(NODE_CACHE_VARIABLE):
        copy = safe_join(Path(root), piece.key.rpartition("/")[2])
        with translate_write_errors(copy):
            shutil.rmtree(copy, ignore_errors=True)
