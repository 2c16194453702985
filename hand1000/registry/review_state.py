"""What the registry records about the review of a model: its candidates, their states, the champion and the history."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

from hand1000.core.errors import Hand1000Error
from hand1000.registry.connection import Tracking, read_pages
from hand1000.registry.decisions import (
    Decision,
    ModelPair,
    State,
    derive_states,
    parse_address,
    parse_candidate,
    parse_decisions,
)
from hand1000.registry.versions import CHAMPION, COMPARED_WITH, GATES, PREVIOUS, VERDICT, RegisteredVersion

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

CANDIDATE, COPIED_FOR = "hand1000.candidate", "hand1000.copied_for"
"""Tags of a version of the reviewer's model: the candidate that it copies, and the number of the decision."""

APPLIED = "hand1000.applied"
"""Tag of the reviewer's model: number of the last decision whose aliases are set."""


@dataclass(frozen=True)
class Candidate:
    """A candidate as a reviewer sees it.

    Attributes:
        version: Name, number and tags.
        state: What was decided about it.
        created: When the pipeline registered it, in UTC.
        run_id: MLflow's id of the run that trained it.
        decisions: The decisions about it, oldest first.
    """

    version: RegisteredVersion
    state: State
    created: datetime
    run_id: str
    decisions: tuple[Decision, ...]

    @property
    def verdict(self) -> str:
        """`passed`, `failed` or `undecided`; "" if no gates judged it."""
        return self.version.tags.get(VERDICT, "")

    @property
    def gates(self) -> str:
        """The outcome of the gates in one line."""
        return self.version.tags.get(GATES, "")

    @property
    def compared_with(self) -> str | None:
        """URI of the champion that the gates compared it with, "" for none, None if that is not recorded."""
        return self.version.tags.get(COMPARED_WITH)


@dataclass(frozen=True)
class ReviewedModel:
    """The reviewer's model, which may not exist yet.

    Attributes:
        pair: Names of the two models.
        exists: Whether the reviewer's model is registered.
        tags: Its tags.
        aliases: Its aliases and their versions.
        versions: Its versions by number.
    """

    pair: ModelPair
    exists: bool
    tags: Mapping[str, str]
    aliases: Mapping[str, int]
    versions: Mapping[int, "ModelVersion"]

    @property
    def champion(self) -> int | None:
        """The version in use."""
        return self.aliases.get(CHAMPION)

    @property
    def previous(self) -> int | None:
        """The version that was in use before."""
        return self.aliases.get(PREVIOUS)

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """All decisions, oldest first."""
        return parse_decisions(self.pair.name, self.tags)

    @property
    def last_number(self) -> int:
        """Number of the newest decision, 0 without any."""
        return self.decisions[-1].number if self.decisions else 0

    @property
    def unfinished(self) -> Decision | None:
        """The decision whose aliases an interrupted command did not set."""
        applied = self.tags.get(APPLIED, "0")
        return self.decisions[-1] if self.decisions and self.last_number > int(applied) else None

    @property
    def abandoned(self) -> list[int]:
        """Copies of candidates for which an interrupted command recorded no decision."""
        decided = {decision.version for decision in self.decisions} | set(self.aliases.values())
        copied_for = {number: version.tags.get(COPIED_FOR, "0") for number, version in self.versions.items()}
        return [number for number, last in copied_for.items() if int(last) > self.last_number and number not in decided]

    def candidate_of(self, version: int | None) -> int | None:
        """Return the number of the candidate that a version copies, None if it copies none."""
        copy = self.versions.get(version or 0)
        if copy is None:
            return None
        recorded = copy.tags.get(CANDIDATE)
        # A copy that was made by hand has the address of the candidate as its source.
        name, _, number = (copy.source or "").removeprefix("models:/").rpartition("/")
        return int(recorded) if recorded else int(number) if name == self.pair.candidates else None

    def copy_of(self, candidate: int) -> int | None:
        """Return the newest version that copies a candidate."""
        copies = [number for number in self.versions if self.candidate_of(number) == candidate]
        return max((number for number in copies if number not in self.abandoned), default=None)


def read_model(tracking: Tracking, pair: ModelPair) -> ReviewedModel:
    """Read the reviewer's model.

    Raises:
        Hand1000Error: MLflow refused, or a decision is damaged.
    """
    from mlflow.exceptions import MlflowException

    with tracking.readable_errors():
        try:
            model = tracking.client.get_registered_model(pair.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return ReviewedModel(pair, exists=False, tags={}, aliases={}, versions={})
        versions = tracking.client.search_model_versions(f"name = '{pair.name}'")
    aliases = {alias: int(version) for alias, version in model.aliases.items()}
    return ReviewedModel(pair, True, dict(model.tags), aliases, {int(version.version): version for version in versions})


def read_candidates(tracking: Tracking, model: ReviewedModel) -> list[Candidate]:
    """Return all candidates of a model, newest first."""
    with tracking.readable_errors():
        versions = tracking.client.search_model_versions(f"name = '{model.pair.candidates}'")
    champion = model.candidate_of(model.champion)
    states = derive_states((int(version.version) for version in versions), model.decisions, champion)
    candidates = [
        Candidate(
            version=RegisteredVersion.of(version),
            state=states[int(version.version)],
            created=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC),
            run_id=version.run_id or "",
            decisions=tuple(decision for decision in model.decisions if decision.candidate == int(version.version)),
        )
        for version in versions
    ]
    return sorted(candidates, key=lambda candidate: -candidate.version.version)


def get_candidate(tracking: Tracking, model: ReviewedModel, number: int) -> Candidate:
    """Return one candidate.

    Raises:
        Hand1000Error: There is no such version.
    """
    candidates = read_candidates(tracking, model)
    for candidate in candidates:
        if candidate.version.version == number:
            return candidate
    numbers = ", ".join(str(candidate.version.version) for candidate in reversed(candidates))
    raise Hand1000Error(
        f"models:/{model.pair.candidates}/{number}: no such candidate at {tracking.redacted_uri}; "
        f"there are: {numbers or 'none'}"
    )


def list_pairs(tracking: Tracking) -> list[ModelPair]:
    """Return the models of this project in the registry, by name."""
    with tracking.readable_errors():
        models = read_pages(tracking.client.search_registered_models, "name LIKE 'hand1000-%'")
        return sorted({ModelPair.named(model.name) for model in models}, key=lambda pair: pair.name)


def list_candidates(tracking: Tracking, gestures: str = "") -> list[Candidate]:
    """Return the candidates of all models, or of one (`four`, `call,four`, or a model's name), newest first."""
    pairs = [parse_address(gestures)[0]] if gestures else list_pairs(tracking)
    return [candidate for pair in pairs for candidate in read_candidates(tracking, read_model(tracking, pair))]


def state_of(tracking: Tracking, candidate: str) -> State:
    """Return the state of a candidate, `four/3` or `models:/hand1000-four-candidates/3`."""
    pair, number = parse_candidate(candidate)
    return get_candidate(tracking, read_model(tracking, pair), number).state


def history(tracking: Tracking, gestures: str) -> tuple[Decision, ...]:
    """Return all decisions about the candidates of a model, oldest first."""
    return read_model(tracking, parse_address(gestures)[0]).decisions
