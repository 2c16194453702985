"""Retention: what `hand1000 gc` removes below an artifact root and in its registry, and why it keeps the rest.

Kept are the weights of every version in use (one with an alias) and of every candidate that waits for a decision, with
the artifacts that reviewing and retraining read; results that a person asked for; and whatever was written or used
within the last days, or may be in use by a run.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from hand1000.registry.connection import Tracking
from hand1000.registry.holdings import CurrentUse, Holdings, Weights, read_holdings
from hand1000.registry.load import WEIGHTS
from hand1000.registry.removed import measure_files, remove_files, remove_weights
from hand1000.storage.artifacts import ArtifactStore
from hand1000.storage.inventory import ARTIFACT, CHECKPOINT, Piece, list_pieces, remove_piece

TRAINING_KINDS = frozenset(
    {
        "assemble_model",
        "encode_dataset",
        "find_hands",
        "generate_class_images",
        "optimize_embeddings",
        "train_fusion",
        "train_unet",
    }
)
"""Artifacts that only a further training of the same run reads; of a version in use they are not needed any more."""

INTERMEDIATE_KINDS = TRAINING_KINDS | {
    "build_depth_pairs",
    "caption_images",
    "compute_gesture_feature",
    "evaluate",
    "evaluate_method",
    "extract_real_features",
    "generate_base",
    "generate_champion",
    "generate_export",
    "generate_general",
    "generate_tuned",
    "imagic_base",
    "imagic_tuned",
    "prepare_data",
    "refine_hands",
    "register",
    "render_pretraining_images",
    "train_autoencoder",
    "train_text_encoder",
}
"""Artifacts that a run computes again if they are missing. Any other kind is a result that a person asked for, such as
a published dataset, a comparison or a base model, and is always kept."""

DAY = 86_400.0

RECENT = "written or used recently"
RUNNING = "a run may be using it"
RESULT = "a result of its own"


@dataclass(frozen=True)
class Report:
    """The files in MLflow of a candidate out of use: its review page and images, and what was beside its weights.

    Attributes:
        weights: The candidate.
        locations: Addresses of the files.
        size: Bytes.
    """

    weights: Weights
    locations: tuple[str, ...]
    size: int

    @property
    def name(self) -> str:
        """Address of the candidate."""
        return self.weights.name


@dataclass(frozen=True)
class Plan:
    """What retention removes, and what it keeps for which reason."""

    pieces: tuple[Piece, ...]
    weights: tuple[Weights, ...]
    kept_pieces: tuple[tuple[Piece, str], ...]
    kept_weights: tuple[tuple[Weights, str], ...]
    reports: tuple[Report, ...] = ()


@dataclass
class Removal:
    """The outcome: what is gone, and what was left because it came into use in the meantime."""

    pieces: list[Piece] = field(default_factory=list)
    weights: list[Weights] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def make_plan(
    store: ArtifactStore,
    tracking: Tracking,
    *,
    keep_days: float,
    now: float,
    keep_reports_days: float = math.inf,
) -> Plan:
    """Read root and registry and decide.

    Args:
        store: The artifact root.
        tracking: The registry of all models that were trained under this root.
        keep_days: Days for which everything is kept after its last use.
        now: Seconds since 1970.
        keep_reports_days: Days for which the review pages of candidates out of use are kept.

    Raises:
        Hand1000Error: Storage or MLflow refuse, or the registry is not that of this root.
    """
    # The pieces first: what is published and registered between the two readings is in neither.
    pieces = list_pieces(store)
    holdings = read_holdings(tracking, now=now)
    holdings.check_belongs_to(store.root, pieces)
    outcome = plan(pieces, holdings, keep_since=now - keep_days * DAY)
    if keep_reports_days == math.inf:
        return outcome
    return replace(outcome, reports=tuple(_list_reports(tracking, holdings, outcome, now - keep_reports_days * DAY)))


def _list_reports(tracking: Tracking, holdings: Holdings, outcome: Plan, keep_since: float) -> Iterator[Report]:
    """Yield the files of candidates that nobody needs since `keep_since`, but those that a needed one shares."""
    needed = {version.run_id for weights in holdings.weights if weights.needed_for for version in weights.versions}
    for weights in holdings.weights:
        run_ids = {version.run_id for version in weights.versions if version.run_id} - needed
        reason = weights.needed_for or _reason_of_time(weights.since, keep_since, holdings.running_since)
        if run_ids and not reason:
            with tracking.readable_errors():
                locations = [tracking.client.get_run(run_id).info.artifact_uri for run_id in sorted(run_ids)]
            if weights.location and (not weights.size or weights in outcome.weights):
                locations.append(weights.location)
            size = measure_files(tracking, locations, {WEIGHTS})
            if size:
                yield Report(weights, tuple(locations), size)


def plan(pieces: Sequence[Piece], holdings: Holdings, *, keep_since: float) -> Plan:
    """Decide, from what is below a root and what its registry holds.

    Args:
        pieces: All pieces below the root.
        holdings: What the registry knows.
        keep_since: Everything written or used after this time is kept, in seconds since 1970.
    """
    used = {piece.name: piece.used for piece in pieces if piece.role == ARTIFACT}

    def reason_for(weights: Weights) -> str:
        last_used = max([weights.since, *(used.get(name, 0.0) for name in weights.registrations)])
        return weights.needed_for or _reason_of_time(last_used, keep_since, holdings.running_since)

    weight_reasons = [(weights, reason_for(weights)) for weights in holdings.weights if weights.size]
    kept_weights = [(weights, reason) for weights, reason in weight_reasons if reason]
    elsewhere = [
        (weights, weights.needed_for) for weights in holdings.weights if weights.needed_for and not weights.size
    ]
    needed = _needed_artifacts([*kept_weights, *elsewhere], holdings)
    finished = {record for piece in pieces for record in piece.records}
    kept, removed = [], []
    for piece in pieces:
        reason = _reason_for_piece(piece, needed, finished)
        if reason is None:
            reason = _reason_of_time(piece.used, keep_since, holdings.running_since)
        if reason:
            kept.append((piece, reason))
        else:
            removed.append(piece)
    return Plan(
        pieces=tuple(removed),
        weights=tuple(weights for weights, reason in weight_reasons if not reason),
        kept_pieces=tuple(kept),
        kept_weights=tuple(kept_weights),
    )


def carry_out(plan: Plan, store: ArtifactStore, tracking: Tracking, on_removed: Callable[[int], None]) -> Removal:
    """Remove what a plan says, weights first; interrupted, the next plan says the rest.

    Args:
        plan: The plan.
        store: The artifact root.
        tracking: Its registry.
        on_removed: Called with the bytes of each removed item.

    Raises:
        Hand1000Error: Storage or MLflow refuse; what is removed by then stays removed.
    """
    removal = Removal()
    spared: set[str] = set()
    current_use = CurrentUse(tracking)
    for weights in plan.weights:
        needed = partial(current_use.is_needed, weights)
        if remove_weights(tracking, weights.model_id, weights.location, weights.versions, needed):
            removal.weights.append(weights)
            on_removed(weights.size)
        else:
            removal.skipped.append(weights.name)
            spared |= weights.artifacts
    for report in plan.reports:
        if current_use.is_needed(report.weights):
            removal.skipped += [] if report.name in removal.skipped else [report.name]
        else:
            remove_files(tracking, report.locations, {WEIGHTS})
            removal.reports.append(report)
            on_removed(report.size)
    for piece in plan.pieces:
        if piece.name not in spared and remove_piece(store, piece):
            removal.pieces.append(piece)
            on_removed(piece.size)
        else:
            removal.skipped.append(piece.key)
    return removal


def _needed_artifacts(kept: Iterable[tuple[Weights, str]], holdings: Holdings) -> dict[str, str]:
    """The reason by artifact, of the artifacts that kept weights need."""
    needed: dict[str, str] = {}
    for weights, reason in kept:
        for name in weights.artifacts:
            # A waiting candidate may still be trained further, or assembled again with another sampler.
            if weights.waits or name.partition("/")[0] not in TRAINING_KINDS:
                needed.setdefault(name, reason)
    return dict.fromkeys(holdings.running_artifacts, RUNNING) | needed


def _reason_for_piece(piece: Piece, needed: Mapping[str, str], finished: set[str]) -> str | None:
    """Why a piece is kept whatever its age; "" if it goes whatever its age; None if its age decides."""
    if piece.role == CHECKPOINT and f"results/{piece.name}.json" in finished:
        return ""
    if piece.role != ARTIFACT:
        return None
    if piece.name in needed:
        return needed[piece.name]
    return None if piece.kind in INTERMEDIATE_KINDS else RESULT


def _reason_of_time(used: float, keep_since: float, running_since: float | None) -> str:
    if used > keep_since:
        return RECENT
    return RUNNING if running_since is not None and used >= running_since else ""
