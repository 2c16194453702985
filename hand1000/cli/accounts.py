"""The command `hand1000 accounts`, which sets up the accounts of an MLflow server."""

import argparse
import os
from pathlib import Path

from hand1000.core.errors import Hand1000Error

PASSWORDS = Path("hand1000-passwords.txt")


def add_accounts_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `accounts` to the commands of `hand1000`."""
    accounts = commands.add_parser(
        "accounts",
        help="set up the accounts of an MLflow server: pipeline, reviewer, reader",
        description="Create the accounts pipeline, reviewer and reader with their rights, and the models of the named "
        "gestures, on an MLflow server with --app-name basic-auth. Run it as the server's administrator, again for "
        "each new gesture. HAND1000_PIPELINE_PASSWORD, HAND1000_REVIEWER_PASSWORD and HAND1000_READER_PASSWORD set "
        "passwords; others are generated.",
    )
    accounts.add_argument(
        "--gesture",
        action="append",
        required=True,
        help="gesture of a model, or several with commas for a shared model; repeatable",
    )
    accounts.add_argument(
        "--registry", metavar="ADDRESS", help="http(s)://... of the server (default: MLFLOW_TRACKING_URI)"
    )
    accounts.add_argument(
        "--passwords",
        type=Path,
        default=PASSWORDS,
        metavar="FILE",
        help=f"new file for generated passwords, readable by its owner alone (default: {PASSWORDS})",
    )
    accounts.set_defaults(run=_set_up)


def _set_up(options: argparse.Namespace) -> None:
    from hand1000.registry.accounts import set_up_accounts
    from hand1000.registry.connection import SERVER_VARIABLE, connect

    if not options.registry and not os.environ.get(SERVER_VARIABLE, "").strip():
        raise Hand1000Error(
            f"accounts need an MLflow server; name it with --registry http(s)://..., or set {SERVER_VARIABLE}"
        )
    tracking = connect(registry=options.registry, create=False)
    created, grants = set_up_accounts(tracking, options.gesture, options.passwords)
    for grant in grants:
        print(f"{grant.account:10} {grant.permission:8} {grant.resource:17} {grant.name}")
    if created:
        print(f"passwords of {', '.join(created)}: {options.passwords}; store them safely and delete the file")
