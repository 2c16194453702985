"""The decisions of a reviewer: promote a candidate, reject it, or roll back to an earlier champion.

A promotion adds a version to `hand1000-<gestures>` that refers to the candidate's files, without a copy of them, and
moves the aliases `champion` and `previous`. Every decision is kept with who, when and why.
"""

import shlex
from dataclasses import dataclass
from typing import Literal

from hand1000.core.errors import Hand1000Error, escape_unprintable
from hand1000.registry.connection import Tracking, registry_option, shell_command
from hand1000.registry.decisions import (
    MAX_NAME,
    MAX_REASON,
    Decision,
    parse_address,
    parse_candidate,
)
from hand1000.registry.load import check_weights_kept, load_model_folder
from hand1000.registry.review_state import (
    Candidate,
    ReviewedModel,
    get_candidate,
    history,
    list_candidates,
    read_model,
    state_of,
)
from hand1000.registry.review_transaction import Draft, copy_candidate, deciding, record
from hand1000.registry.versions import MODEL_DIGEST
from hand1000.storage.scratch import process_scratch

__all__ = [
    "ReviewCommands",
    "history",
    "list_candidates",
    "promote",
    "reject",
    "review_commands",
    "rollback",
    "state_of",
]

ExpectedChampion = int | None | Literal["compared", "any"]
"""Version of the champion that the reviewer saw (None: there was none); `compared`: the one that the candidate's gates
compared it with; `any`: not checked."""

PLACEHOLDER = "REASON"
"""What printed commands have in place of a reason; no reason itself."""


def promote(
    tracking: Tracking,
    candidate: str,
    *,
    who: str,
    why: str = "",
    override: str = "",
    expected_champion: ExpectedChampion = "compared",
) -> Decision:
    """Make a candidate the champion.

    Args:
        tracking: MLflow, of which the reviewer may edit `hand1000-<gestures>`.
        candidate: `four/3` or `models:/hand1000-four-candidates/3`.
        who: The reviewer.
        why: Reason.
        override: Reason to promote a candidate that failed its gates, that has none, or that was rejected.
        expected_champion: What the reviewer compared the candidate with.

    Returns:
        The decision; its `version` is the new champion of `hand1000-<gestures>`.

    Raises:
        Hand1000Error: Another champion than expected, a refusal without `override`, weights whose checksums differ, or
            MLflow refused.
    """
    _check_name(who)
    why, override = _clean(why), _clean(override)
    pair, number = parse_candidate(candidate)
    model = read_model(tracking, pair)
    requested = get_candidate(tracking, model, number)
    _check_promotion(tracking, model, requested, override, expected_champion)
    # Before the lock, because the download may take minutes. The record of a version names its files for ever.
    uri, digest = requested.version.uri, requested.version.tags.get(MODEL_DIGEST, "")
    _verify_weights(tracking, uri, digest)
    with deciding(tracking, pair, who) as (lock, model):
        requested = get_candidate(tracking, model, number)
        overridden = _check_promotion(tracking, model, requested, override, expected_champion)
        if requested.version.tags.get(MODEL_DIGEST) != digest:
            raise Hand1000Error(f"{uri}: its checksum was changed during the promotion; find out by whom")
        version = model.copy_of(number)
        if version is None or model.versions[version].tags.get(MODEL_DIGEST) != digest:
            version = copy_candidate(tracking, lock, model, number)
        reasons = "; ".join(reason for reason in (override, why) if reason)
        draft = Draft("promote", who, reasons, candidate=number, version=version, override=bool(overridden))
        return record(tracking, lock, model, draft)


def reject(tracking: Tracking, candidate: str, *, who: str, why: str) -> Decision:
    """Record that a candidate must not be used, and why; later candidates with its data and settings are not trained.

    Raises:
        Hand1000Error: It is the champion, it is rejected already, there is no reason, or MLflow refused.
    """
    _check_name(who)
    why = _clean(why)
    if not why:
        raise Hand1000Error(f"{candidate}: a rejection needs a reason")
    pair, number = parse_candidate(candidate)
    get_candidate(tracking, read_model(tracking, pair), number)
    with deciding(tracking, pair, who) as (lock, model):
        requested = get_candidate(tracking, model, number)
        if requested.state == "approved":
            raise Hand1000Error(
                f"{requested.version.uri}: it is the champion, version {model.champion}; roll back first"
            )
        if requested.state == "rejected":
            raise Hand1000Error(f"{requested.version.uri}: already {_describe(requested.decisions[-1])}")
        return record(tracking, lock, model, Draft("reject", who, why, candidate=number))


def rollback(
    tracking: Tracking,
    gestures: str,
    *,
    who: str,
    why: str = "",
    to: int | None = None,
    expected_champion: ExpectedChampion = "any",
) -> Decision:
    """Make an earlier champion the champion again; the present one becomes `previous`.

    Args:
        tracking: MLflow, of which the reviewer may edit `hand1000-<gestures>`.
        gestures: `four`, `call,four`, or the name of the model.
        who: The reviewer.
        why: Reason.
        to: Version of `hand1000-<gestures>`; by default the previous champion.
        expected_champion: The champion that is rolled back.

    Raises:
        Hand1000Error: Another champion than expected, no such version, damaged weights, or MLflow refused.
    """
    _check_name(who)
    why = _clean(why)
    pair, _ = parse_address(gestures)
    target = _rollback_target(tracking, read_model(tracking, pair), to, expected_champion)
    copy = read_model(tracking, pair).versions[target]
    _verify_weights(tracking, f"models:/{pair.name}/{target}", copy.tags.get(MODEL_DIGEST, ""))
    with deciding(tracking, pair, who) as (lock, model):
        if _rollback_target(tracking, model, to, expected_champion) != target:
            command = shell_command(tracking, "review", "history", pair.gestures)
            raise Hand1000Error(f"{pair.name}: its aliases changed during the rollback; see `{command}`")
        draft = Draft("rollback", who, why, candidate=model.candidate_of(target), version=target)
        return record(tracking, lock, model, draft)


@dataclass(frozen=True)
class ReviewCommands:
    """Lines of a shell with which a reviewer decides."""

    compare: str
    promote: str
    reject: str
    rollback: str


def review_commands(
    candidate_uri: str,
    expected_champion: int | None,
    registry: Tracking | str | None = None,
    *,
    verdict: str = "passed",
) -> ReviewCommands:
    """Return the exact commands for a page about a candidate.

    Args:
        candidate_uri: `models:/hand1000-<gestures>-candidates/<version>`.
        expected_champion: Version of the champion that the page compares with, None without one.
        registry: Address of the MLflow, or a connection, of which the present folder decides whether to name it.
        verdict: Verdict of its gates: one that failed needs an override.
    """
    pair, _ = parse_candidate(candidate_uri)
    champion = "none" if expected_champion is None else str(expected_champion)
    option = f"--registry {shlex.quote(registry)}" if isinstance(registry, str) else ""
    if isinstance(registry, Tracking):
        option = registry_option(registry)

    def command(action: str, *arguments: str) -> str:
        return f"{shlex.join(['hand1000', 'review', action, *arguments])} {option}".rstrip()

    override = [] if verdict == "passed" else ["--override", PLACEHOLDER]
    return ReviewCommands(
        compare=command("compare", candidate_uri),
        promote=command("promote", candidate_uri, "--champion", champion, *override),
        reject=command("reject", candidate_uri, "--reason", PLACEHOLDER),
        rollback=command("rollback", pair.name),
    )


def _check_name(who: str) -> None:
    if not 1 <= len(who.strip()) <= MAX_NAME or not who.isprintable():
        raise Hand1000Error(f"reviewer {who[:50]!r}: give a name of 1 to {MAX_NAME} printable characters")


def _clean(reason: str) -> str:
    """Return the reason on one line, as tables print it; a terminal would obey control characters."""
    reason = escape_unprintable(" ".join(reason.split()))
    if reason == PLACEHOLDER:
        raise Hand1000Error(f"the reason is still {PLACEHOLDER}; write why")
    if len(reason) > MAX_REASON:
        raise Hand1000Error(f"the reason has {len(reason)} characters; at most {MAX_REASON} are kept")
    return reason


def _check_promotion(
    tracking: Tracking,
    model: ReviewedModel,
    candidate: Candidate,
    override: str,
    expected_champion: ExpectedChampion,
) -> list[str]:
    """Return the refusals that `override` sets aside."""
    uri, number = candidate.version.uri, candidate.version.version
    check_weights_kept(uri, candidate.version.tags)
    if candidate.state == "approved":
        raise Hand1000Error(f"{uri}: it is the champion already, version {model.champion} of {model.pair.name}")
    if expected_champion == "compared":
        expected_champion = _compared_champion(model, candidate)
    compare = shell_command(tracking, "review", "compare", f"{model.pair.gestures}/{number}")
    _check_champion(model, expected_champion, compare)
    refusals = []
    if candidate.verdict != "passed":
        refusals.append(candidate.gates or f"its gates: {candidate.verdict or 'none evaluated'}")
    if candidate.state == "rejected":
        refusals.append(_describe(candidate.decisions[-1]))
    if refusals and not override:
        raise Hand1000Error(f"{uri}: {'; '.join(refusals)}; reject it, or give --override with a reason")
    return refusals


def _compared_champion(model: ReviewedModel, candidate: Candidate) -> ExpectedChampion:
    compared = candidate.compared_with
    if not compared:
        return None
    pair, version = parse_address(compared)
    return version if pair == model.pair else None


def _check_champion(model: ReviewedModel, expected: ExpectedChampion, compare: str) -> None:
    if expected != "any" and expected != model.champion:
        raise Hand1000Error(
            f"{model.pair.name}: the champion is {model.champion or 'none'}, not {expected or 'none'}; "
            f"look at `{compare}`, then add --champion {model.champion or 'none'}"
        )


def _rollback_target(tracking: Tracking, model: ReviewedModel, to: int | None, expected: ExpectedChampion) -> int:
    name = model.pair.name
    _check_champion(model, expected, shell_command(tracking, "review", "history", model.pair.gestures))
    target = to if to is not None else model.previous
    earlier = sorted(set(model.versions) - set(model.abandoned) - {model.champion or 0})
    choices = f"versions to go back to: {', '.join(map(str, earlier)) or 'none'}"
    if target is None:
        raise Hand1000Error(f"{name}: there is no previous champion; {choices}")
    if target not in earlier:
        problem = "is the champion" if target == model.champion else "does not exist"
        raise Hand1000Error(f"{name}: version {target} {problem}; {choices}")
    check_weights_kept(f"models:/{name}/{target}", model.versions[target].tags)
    return target


def _verify_weights(tracking: Tracking, uri: str, digest: str) -> None:
    """Compare the stored files with the checksum, not those that an earlier download left in the cache."""
    if not digest:
        raise Hand1000Error(
            f"{uri}: has no tag {MODEL_DIGEST}, so that its weights cannot be checked; register it again"
        )
    load_model_folder(uri, registry=tracking, cache=process_scratch(None))


def _describe(decision: Decision) -> str:
    done = {"promote": "promoted", "reject": "rejected", "rollback": "rolled back to"}[decision.action]
    return f"{done} by {decision.who} on {decision.when:%Y-%m-%d}: {decision.why or 'no reason given'}"
