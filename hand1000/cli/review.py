"""The commands `hand1000 review`: list, show, compare, promote and reject candidates, roll back, read the history."""

import argparse
import getpass
import json
import os
from typing import TYPE_CHECKING

from hand1000.cli.options import add_registry_option
from hand1000.cli.review_notify import add_notify_commands
from hand1000.core.errors import Hand1000Error

if TYPE_CHECKING:
    from hand1000.registry.connection import Tracking
    from hand1000.registry.decisions import Decision, ModelPair
    from hand1000.registry.review_state import Candidate, ReviewedModel

_STATES = ("pending", "approved", "rejected", "superseded")


def add_review_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `review` and its actions to the commands of `hand1000`."""
    review = commands.add_parser("review", help="decide which candidate is used: list, compare, promote, roll back")
    actions = review.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="list the candidates, their states and the champions")
    listing.add_argument("--state", choices=_STATES, help="only candidates in this state")
    listing.set_defaults(run=_list)
    show = actions.add_parser("show", help="show a candidate: gates, metrics, decisions, and what to do next")
    show.set_defaults(run=_show)
    compare = actions.add_parser("compare", help="compare the metrics of a candidate with those of the champion")
    compare.add_argument("--with", dest="other", metavar="CANDIDATE", help="another candidate (default: the champion)")
    compare.set_defaults(run=_compare)
    promote = actions.add_parser("promote", help="make a candidate the champion")
    promote.add_argument("--override", default="", metavar="REASON", help="why, although its gates failed")
    promote.set_defaults(run=_promote)
    reject = actions.add_parser("reject", help="record that a candidate must not be used")
    reject.set_defaults(run=_reject)
    rollback = actions.add_parser("rollback", help="make the previous champion the champion again")
    rollback.add_argument(
        "--to", type=_version, metavar="N", help="version of hand1000-GESTURE (default: the previous)"
    )
    rollback.set_defaults(run=_rollback)
    history = actions.add_parser("history", help="list the decisions about a model")
    history.set_defaults(run=_history)
    add_notify_commands(actions)

    for action in (show, compare, promote, reject):
        action.add_argument(
            "candidate", metavar="CANDIDATE", help="GESTURE/VERSION or models:/hand1000-GESTURE-candidates/VERSION"
        )
    for action in (listing, rollback, history):
        action.add_argument(
            "model",
            metavar="GESTURE",
            nargs="?" if action is listing else None,
            default="",
            help=f"gesture, several with commas, or hand1000-GESTURE{' (default: all)' if action is listing else ''}",
        )
    for action, meaning in ((promote, "the one that its gates compared it with"), (rollback, "any")):
        action.add_argument(
            "--champion",
            type=_champion,
            # argparse would convert a default text.
            default=argparse.SUPPRESS,
            metavar="N|none",
            help=f"refuse if the champion is another version than this, which you saw (default: {meaning})",
        )
    for action in (promote, reject, rollback):
        action.add_argument("--reason", default="", required=action is reject, help="why, for the history")
        action.add_argument(
            "--as", dest="who", metavar="NAME", help="you (default: MLFLOW_TRACKING_USERNAME, or login)"
        )
    for action in (listing, show, history):
        action.add_argument("--json", action="store_true", help="print JSON")
    for action in (listing, show, compare, promote, reject, rollback, history):
        add_registry_option(action)


def _version(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) < 10**9:
        raise argparse.ArgumentTypeError(f"{text!r}: give the number of a version")
    return int(text)


def _champion(text: str) -> int | None:
    return None if text == "none" else _version(text)


def _list(options: argparse.Namespace) -> None:
    from hand1000.cli.review_pages import candidate_json, format_candidates
    from hand1000.registry.decisions import parse_address
    from hand1000.registry.review_state import list_pairs, read_candidates

    tracking = _connect(options)
    pairs = [parse_address(options.model)[0]] if options.model else list_pairs(tracking)
    models = [_read(tracking, pair) for pair in pairs]
    rows = [(model, candidate) for model in models for candidate in read_candidates(tracking, model)]
    if not rows:
        name = f"models:/{pairs[0].candidates}" if options.model else "candidate"
        raise Hand1000Error(f"{tracking.redacted_uri}: no {name} there; train one, or name another --registry")
    rows = [row for row in rows if options.state in (None, row[1].state)]
    if options.json:
        _print_json([candidate_json(*row) for row in rows])
    else:
        print(format_candidates(models, rows), end="")


def _show(options: argparse.Namespace) -> None:
    from hand1000.cli.review_pages import candidate_json, format_candidate, read_gates
    from hand1000.registry.review import review_commands

    tracking = _connect(options)
    model, candidate = _get(tracking, options.candidate)
    gates = read_gates(tracking, candidate)
    if options.json:
        _print_json({**candidate_json(model, candidate), "gate_report": gates and gates.model_dump(mode="json")})
        return
    commands = review_commands(candidate.version.uri, model.champion, tracking, verdict=candidate.verdict)
    print(format_candidate(tracking, model, candidate, gates, commands), end="")


def _compare(options: argparse.Namespace) -> None:
    from hand1000.cli.review_pages import format_comparison
    from hand1000.registry.versions import RegisteredVersion

    tracking = _connect(options)
    model, candidate = _get(tracking, options.candidate)
    if options.other:
        other = _get(tracking, options.other)[1].version
    elif model.champion is not None:
        other = RegisteredVersion.of(model.versions[model.champion])
    else:
        raise Hand1000Error(f"{model.pair.name}: no champion to compare with; name a candidate, --with GESTURE/VERSION")
    print(format_comparison(candidate.version, other), end="")


def _promote(options: argparse.Namespace) -> None:
    from hand1000.registry.review import promote

    decision = promote(
        _connect(options),
        options.candidate,
        who=_reviewer(options.who),
        why=options.reason,
        override=options.override,
        expected_champion=getattr(options, "champion", "compared"),
    )
    print(f"{options.candidate} is the champion now, {_describe_move(decision, options.candidate)}")


def _reject(options: argparse.Namespace) -> None:
    from hand1000.registry.review import reject

    reject(_connect(options), options.candidate, who=_reviewer(options.who), why=options.reason)
    print(f"{options.candidate} is rejected")


def _rollback(options: argparse.Namespace) -> None:
    from hand1000.registry.review import rollback

    decision = rollback(
        _connect(options),
        options.model,
        who=_reviewer(options.who),
        why=options.reason,
        to=options.to,
        expected_champion=getattr(options, "champion", "any"),
    )
    print(f"rolled back to {_describe_move(decision, options.model)}")


def _history(options: argparse.Namespace) -> None:
    from hand1000.cli.review_pages import decision_json, format_history
    from hand1000.registry.decisions import parse_address

    tracking = _connect(options)
    model = _read(tracking, parse_address(options.model)[0])
    if options.json:
        _print_json([decision_json(decision) for decision in model.decisions])
    else:
        print(format_history(model), end="")


def _describe_move(decision: "Decision", address: str) -> str:
    from hand1000.registry.decisions import parse_address

    name = parse_address(address)[0].name
    return f"models:/{name}/{decision.version} (before: {decision.champion_before or 'none'})"


def _connect(options: argparse.Namespace) -> "Tracking":
    from hand1000.registry.connection import connect

    return connect(registry=options.registry, create=False)


def _read(tracking: "Tracking", pair: "ModelPair") -> "ReviewedModel":
    from hand1000.registry.review_state import read_model
    from hand1000.registry.review_transaction import finish_interrupted

    return finish_interrupted(tracking, read_model(tracking, pair), _reviewer())


def _get(tracking: "Tracking", address: str) -> "tuple[ReviewedModel, Candidate]":
    from hand1000.registry.decisions import parse_candidate
    from hand1000.registry.review_state import get_candidate

    pair, number = parse_candidate(address)
    model = _read(tracking, pair)
    return model, get_candidate(tracking, model, number)


def _reviewer(name: str | None = None) -> str:
    return name or os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))
