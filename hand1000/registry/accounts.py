"""Accounts of an MLflow server with basic authentication: pipeline, reviewer and reader, and what each may do.

MLflow grants rights on single models by their exact names, and whoever creates a model manages it. Therefore the
models of every gesture are created here, before the pipeline could create the one that only a reviewer may write.
"""

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hand1000.core.errors import Hand1000Error, one_line, translate_write_errors
from hand1000.gestures import parse_gestures
from hand1000.registry.connection import Tracking
from hand1000.registry.decisions import ModelPair
from hand1000.registry.tracking import EXPERIMENT
from hand1000.registry.versions import create_model_if_missing

if TYPE_CHECKING:
    from mlflow.server.auth.client import AuthServiceClient

PASSWORD_VARIABLE = "HAND1000_{}_PASSWORD"
"""Environment variable with the password of an account, whose name in capitals takes the place of the braces."""

_TOKEN_BYTES = 24


@dataclass(frozen=True)
class Rights:
    """MLflow's permissions of an account.

    Attributes:
        reviewed: On `hand1000-<gestures>`, where a version is promoted.
        candidates: On `hand1000-<gestures>-candidates`, where runs register.
        experiment: On the experiment, with its runs, their files and the weights.
    """

    reviewed: str
    candidates: str
    experiment: str


ACCOUNTS = {
    "pipeline": Rights(reviewed="READ", candidates="EDIT", experiment="EDIT"),
    "reviewer": Rights(reviewed="MANAGE", candidates="EDIT", experiment="READ"),
    "reader": Rights(reviewed="READ", candidates="READ", experiment="READ"),
}
"""The accounts. None but MLflow's administrator may delete runs or weights, which `hand1000 gc` does."""


@dataclass(frozen=True)
class Grant:
    """One permission that an account has."""

    account: str
    resource: str
    name: str
    permission: str


def set_up_accounts(
    tracking: Tracking, gestures: Sequence[str], passwords: Path, experiment: str = EXPERIMENT
) -> tuple[list[str], list[Grant]]:
    """Create models, experiment, accounts and rights; what is there already is brought to the same state.

    Args:
        tracking: Connection to the server as its administrator.
        gestures: Gestures of each model, such as `four` or `call,four`.
        passwords: File for the passwords that neither the environment nor an earlier call has set; its mode is 600.
        experiment: Name of the experiment.

    Returns:
        The accounts whose passwords were written to `passwords`, and all grants.

    Raises:
        Hand1000Error: The server has no accounts, this account is not its administrator, its default permission is
            higher than READ, a password is refused, or `passwords` exists and another one must be written.
    """
    client = _open_accounts(tracking)
    created = _create_users(client, passwords)
    resources = [("experiment", _create_experiment(tracking, experiment), "experiment")]
    for text in gestures:
        pair = ModelPair.of(parse_gestures(text))
        for name, role in ((pair.name, "reviewed"), (pair.candidates, "candidates")):
            create_model_if_missing(tracking, name)
            resources.append(("registered_model", name, role))
    grants = []
    for account, rights in ACCOUNTS.items():
        for kind, name, role in resources:
            permission = getattr(rights, role)
            grant = Grant(account, kind, name, permission)
            with tracking.readable_errors():
                effective = _apply_grant(client, grant)
            _check_effective(grant, effective)
            grants.append(grant)
    return created, grants


def _open_accounts(tracking: Tracking) -> "AuthServiceClient":
    from mlflow.exceptions import MlflowException
    from mlflow.server import get_app_client

    if not tracking.uri.startswith(("http://", "https://")):
        raise Hand1000Error(f"{tracking.redacted_uri}: an MLflow without accounts; name a server with --registry")
    client = get_app_client("basic-auth", tracking_uri=tracking.uri)
    user = os.environ.get("MLFLOW_TRACKING_USERNAME", "")
    try:
        is_admin = client.get_user(user).is_admin
    except MlflowException as error:
        raise Hand1000Error(
            f"{tracking.redacted_uri}: cannot manage accounts: {one_line(error)}; start the server with "
            "--app-name basic-auth, and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to its administrator"
        ) from error
    if not is_admin:
        raise Hand1000Error(f"{tracking.redacted_uri}: {user} is not its administrator, who alone may set up accounts")
    return client


def _create_users(client: "AuthServiceClient", passwords: Path) -> list[str]:
    """Create the users that do not exist, and set the passwords that the environment names."""
    requested = {account: os.environ.get(PASSWORD_VARIABLE.format(account.upper()), "") for account in ACCOUNTS}
    missing = [account for account in ACCOUNTS if not _exists(client, account)]
    generated = {account: secrets.token_urlsafe(_TOKEN_BYTES) for account in missing if not requested[account]}
    if generated:
        # Before the accounts, so that no password is lost if this is interrupted.
        _write_passwords(passwords, generated)
    for account, password in requested.items():
        try:
            if account in missing:
                client.create_user(account, generated.get(account, password))
            elif password:
                client.update_user_password(account, password)
        except Exception as error:
            # The message of MLflow's error may contain the request's text.
            text = one_line(error).replace(generated.get(account, password), "...")
            raise Hand1000Error(f"{account}: MLflow refuses the account or its password: {text}") from None
    return list(generated)


def _write_passwords(path: Path, passwords: dict[str, str]) -> None:
    try:
        with translate_write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Hand1000Error(f"{path}: exists; name another file for the passwords of {', '.join(passwords)}") from None
    with translate_write_errors(path), os.fdopen(descriptor, "w") as file:
        file.writelines(f"{account} {password}\n" for account, password in passwords.items())
        file.flush()
        os.fsync(file.fileno())


def _exists(client: "AuthServiceClient", account: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        client.get_user(account)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise Hand1000Error(f"{account}: {one_line(error)}") from error
        return False
    return True


def _create_experiment(tracking: Tracking, name: str) -> str:
    with tracking.readable_errors():
        experiment = tracking.client.get_experiment_by_name(name)
        return experiment.experiment_id if experiment else tracking.client.create_experiment(name)


def _apply_grant(client: "AuthServiceClient", grant: Grant) -> str:
    """Give an account exactly this permission; return the one that it has after all defaults and roles."""
    from mlflow.exceptions import MlflowException

    target = (grant.account, grant.resource, grant.name)
    try:
        client.grant_user_permission(*target, grant.permission)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        # MLflow replaces no grant, and the account may have been given another, as the creator of the model.
        if client.get_user_permission(*target).permission != grant.permission:
            client.revoke_user_permission(*target)
            client.grant_user_permission(*target, grant.permission)
    return client.get_user_permission(*target).permission


def _check_effective(grant: Grant, effective: str) -> None:
    if effective != grant.permission:
        raise Hand1000Error(
            f"{grant.account} has {effective} on {grant.name} instead of {grant.permission}; set default_permission to "
            "READ or NO_PERMISSIONS in the server's basic_auth.ini, and take other roles from this account"
        )
