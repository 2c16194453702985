"""How a decision is written to the registry so that a killed process or a second reviewer leaves no mixture.

The copy of a candidate comes first, then the decision's tag, then the aliases. A process that is killed in between
leaves either a copy without a decision, which the next command deletes, or a decision without aliases, which the next
command sets.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from hand1000.core.errors import Hand1000Error
from hand1000.registry.connection import Tracking, shell_command
from hand1000.registry.decisions import Action, Decision, ModelPair
from hand1000.registry.review_lock import ReviewLock, review_lock
from hand1000.registry.review_state import (
    APPLIED,
    CANDIDATE,
    COPIED_FOR,
    ReviewedModel,
    read_candidates,
    read_model,
)
from hand1000.registry.versions import CHAMPION, PREVIOUS, STATE, create_model_if_missing


@contextmanager
def deciding(tracking: Tracking, pair: ModelPair, who: str) -> Iterator[tuple[ReviewLock, ReviewedModel]]:
    """Hold the lock of the reviewer's model, which is created if necessary.

    Yields:
        The lock, and the model after what a killed command left was finished or undone.

    Raises:
        Hand1000Error: Another decision is being made, or MLflow refused.
    """
    if not read_model(tracking, pair).exists:
        create_model_if_missing(tracking, pair.name)
    with review_lock(tracking, pair.name, who) as lock:
        model = read_model(tracking, pair)
        if model.abandoned or model.unfinished:
            for version in model.abandoned:
                # Harmless where the reviewer may not delete: nothing refers to it.
                with suppress(Hand1000Error), tracking.readable_errors():
                    tracking.client.delete_model_version(pair.name, str(version))
            if model.unfinished:
                _apply(tracking, lock, model, model.unfinished)
            model = read_model(tracking, pair)
        yield lock, model


def copy_candidate(tracking: Tracking, lock: ReviewLock, model: ReviewedModel, number: int) -> int:
    """Add a version that refers to the candidate's files; MLflow's own copy could not add the two tags at once."""
    lock.check()
    with tracking.readable_errors():
        source = tracking.client.get_model_version(model.pair.candidates, str(number))
        tags = {key: value for key, value in source.tags.items() if key != STATE}
        copy = tracking.client.create_model_version(
            model.pair.name,
            f"models:/{source.name}/{source.version}",
            source.run_id,
            {**tags, CANDIDATE: str(number), COPIED_FOR: str(model.last_number + 1)},
            source.run_link,
            source.description,
            await_creation_for=0,
            model_id=source.model_id,
        )
    return int(copy.version)


@dataclass(frozen=True)
class Draft:
    """A decision without number and time."""

    action: Action
    who: str
    why: str
    candidate: int | None
    version: int | None = None
    override: bool = False


def record(tracking: Tracking, lock: ReviewLock, model: ReviewedModel, draft: Draft) -> Decision:
    """Record a decision, which from then on is made, and apply it."""
    name = model.pair.name
    decision = Decision(
        number=model.last_number + 1,
        when=datetime.now(UTC).replace(microsecond=0),
        champion_before=model.champion,
        **vars(draft),
    )
    key, value = decision.tag
    lock.check()
    with tracking.readable_errors():
        tracking.client.set_registered_model_tag(name, key, value)
    model = read_model(tracking, model.pair)
    if model.tags.get(key) != value:
        command = shell_command(tracking, "review", "history", model.pair.gestures)
        raise Hand1000Error(f"{name}: another decision came first; see `{command}`")
    _apply(tracking, lock, model, decision)
    return decision


def _apply(tracking: Tracking, lock: ReviewLock, model: ReviewedModel, decision: Decision) -> None:
    """Set the aliases of a recorded decision, however often, the champion's last."""
    name, client = model.pair.name, tracking.client
    with tracking.readable_errors():
        if decision.version is not None:
            lock.check()
            if decision.champion_before is not None:
                client.set_registered_model_alias(name, PREVIOUS, str(decision.champion_before))
            elif model.previous is not None:
                client.delete_registered_model_alias(name, PREVIOUS)
            client.set_registered_model_alias(name, CHAMPION, str(decision.version))
        client.set_registered_model_tag(name, APPLIED, str(decision.number))
    _mirror_states(tracking, model.pair)


def _mirror_states(tracking: Tracking, pair: ModelPair) -> None:
    """Write the states where MLflow's page and its webhooks show them, if the reviewer may edit the candidates."""
    with suppress(Hand1000Error), tracking.readable_errors():
        for candidate in read_candidates(tracking, read_model(tracking, pair)):
            version = candidate.version
            if version.tags.get(STATE, "pending") != candidate.state:
                tracking.client.set_model_version_tag(version.name, str(version.version), STATE, candidate.state)


def finish_interrupted(tracking: Tracking, model: ReviewedModel, who: str) -> ReviewedModel:
    """Finish or undo what a killed command left, if there is anything and this user may; return the model after it."""
    if not model.unfinished and not model.abandoned:
        return model
    with suppress(Hand1000Error), deciding(tracking, model.pair, who):
        pass
    return read_model(tracking, model.pair)
