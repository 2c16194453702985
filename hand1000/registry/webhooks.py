"""Webhooks by which an MLflow server notifies a reviewer about candidates, and their verification.

MLflow calls the URL from its server only: an embedded MLflow calls nobody. It signs each request with HMAC-SHA256 over
the id of the delivery, its time and the body.
"""

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from hand1000.core.documents import parse_json
from hand1000.core.errors import Hand1000Error
from hand1000.core.text import MAX_MESSAGE, shorten
from hand1000.registry.connection import Tracking, read_pages
from hand1000.registry.versions import CANDIDATES, CHAMPION, GATES, MODEL_NAME, STATE

if TYPE_CHECKING:
    from mlflow.entities.webhook import Webhook, WebhookEventStr

NAME = "hand1000-review"
"""Name of every webhook of this project in MLflow."""

EVENTS: tuple["WebhookEventStr", ...] = (
    "model_version.created",
    "model_version_tag.set",
    "model_version_alias.created",
)
"""A candidate is registered, its state changes, there is another champion."""

SECRET_VARIABLE = "HAND1000_WEBHOOK_SECRET"
MAX_AGE_SECONDS = 300.0
MAX_BODY = 1_000_000
"""More bytes than any request of MLflow has, which holds a description of a version."""

_MIN_SECRET, _MAX_SECRET = 16, 500
_SECONDS = re.compile("[0-9]{1,12}")
_VERSION = re.compile("[0-9]{1,18}")


def add_webhook(tracking: Tracking, url: str, secret: str) -> "Webhook":
    """Let the server call `url` about the candidates and champions of all gestures.

    Args:
        tracking: A server, of which the user is an administrator if it has accounts.
        url: An https address; the server's own settings may allow http and private networks.
        secret: Key of the signatures, which the receiver knows.

    Raises:
        Hand1000Error: The MLflow is embedded, the secret is short, the URL is in use already, or the server refuses it.
    """
    _require_server(tracking)
    if not _MIN_SECRET <= len(secret) <= _MAX_SECRET:
        raise Hand1000Error(
            f"{SECRET_VARIABLE}: {len(secret)} characters; set it to {_MIN_SECRET} to {_MAX_SECRET} random ones, "
            "such as the output of `openssl rand -hex 32`"
        )
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise Hand1000Error(f"{url}: not an address for a webhook; write https://HOST/PATH")
    for webhook in list_webhooks(tracking):
        if webhook.url == url:
            raise Hand1000Error(f"{url}: is called already by webhook {webhook.webhook_id}; remove that one first")
    with tracking.readable_errors():
        return tracking.client.create_webhook(NAME, url, list(EVENTS), "Decisions about candidates", secret)


def list_webhooks(tracking: Tracking) -> "list[Webhook]":
    """Return the webhooks of this project, newest first."""
    _require_server(tracking)
    try:
        with tracking.readable_errors():
            return [webhook for webhook in read_pages(tracking.client.list_webhooks) if webhook.name == NAME]
    except Hand1000Error as error:
        # MLflow encrypts the secrets, without this variable by a key that a restart forgets.
        raise Hand1000Error(f"{error}; does the server have MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY?") from error


def remove_webhook(tracking: Tracking, webhook_id: str) -> None:
    """Stop the calls of a webhook; the server's caches may call for up to a minute more.

    Raises:
        Hand1000Error: This project has no such webhook.
    """
    _find(tracking, webhook_id)
    with tracking.readable_errors():
        tracking.client.delete_webhook(webhook_id)


def call_webhook(tracking: Tracking, webhook_id: str) -> int:
    """Let the server send an example to the webhook's URL; return the status of the answer.

    Raises:
        Hand1000Error: This project has no such webhook, nobody answers, or the answer is an error.
    """
    url = _find(tracking, webhook_id).url
    with tracking.readable_errors():
        result = tracking.client.test_webhook(webhook_id)
    if not result.success or result.response_status is None:
        problem = result.error_message or f"status {result.response_status}: {result.response_body}"
        raise Hand1000Error(f"{url}: {' '.join(problem.split())[:300]}")
    return result.response_status


def verify_webhook(
    headers: Mapping[str, str], body: bytes, secret: str, *, max_age: float = MAX_AGE_SECONDS
) -> dict[str, Any]:
    """Return the content of a request that an MLflow server sent, after checking its signature and time.

    Args:
        headers: Headers of the request.
        body: Its body as received.
        secret: The secret of the webhook.
        max_age: Oldest time of sending, in seconds before and after now.

    Raises:
        Hand1000Error: The signature is missing or wrong, or the request is old: answer 401 and do nothing.
    """
    values = {name.lower(): value for name, value in headers.items()}
    delivery, sent = values.get("x-mlflow-delivery-id", ""), values.get("x-mlflow-timestamp", "")
    signed = f"{delivery}.{sent}.".encode("utf-8", "surrogatepass") + body
    digest = base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest()).decode()
    # In constant time, so that nobody can guess a signature byte by byte.
    if not hmac.compare_digest(
        f"v1,{digest}".encode(), values.get("x-mlflow-signature", "").encode("utf-8", "surrogatepass")
    ):
        raise Hand1000Error("webhook: wrong or missing signature")
    if not _SECONDS.fullmatch(sent) or abs(time.time() - int(sent)) > max_age:
        raise Hand1000Error(
            f"webhook: sent at {shorten(sent)}, more than {max_age:.0f} s ago; set the clocks of both machines"
        )
    payload = parse_json(body, "webhook")
    if not isinstance(payload, dict):
        raise Hand1000Error("webhook: the body is not a JSON object; MLflow sends one")
    return payload


def describe_event(payload: Mapping[str, Any]) -> str | None:
    """Return a line for a reviewer, or None for any other event, such as one of another model or tag."""
    event, data = f"{payload.get('entity')}.{payload.get('action')}", payload.get("data")
    if not isinstance(data, Mapping):
        return None
    name, version = str(data.get("name", "")), str(data.get("version", ""))
    if not MODEL_NAME.fullmatch(name) or not _VERSION.fullmatch(version):
        return None
    is_candidate = name.endswith(CANDIDATES)
    if event == "model_version.created" and is_candidate:
        tags = data.get("tags")
        gates = tags.get(GATES, "no gates") if isinstance(tags, Mapping) else "no gates"
        return f"models:/{name}/{version} waits for a review; {shorten(str(gates), MAX_MESSAGE)}"
    if event == "model_version_tag.set" and is_candidate and data.get("key") == STATE:
        return f"models:/{name}/{version} is {shorten(str(data.get('value')))}"
    if event == "model_version_alias.created" and not is_candidate and data.get("alias") == CHAMPION:
        return f"models:/{name}/{version} is the champion"
    return None


def _require_server(tracking: Tracking) -> None:
    if tracking.lock_file is not None:
        raise Hand1000Error(
            f"{tracking.redacted_uri}: only an MLflow server calls webhooks; name one with --registry http(s)://..."
        )


def _find(tracking: Tracking, webhook_id: str) -> "Webhook":
    webhooks = list_webhooks(tracking)
    for webhook in webhooks:
        if webhook.webhook_id == webhook_id:
            return webhook
    known = ", ".join(webhook.webhook_id for webhook in webhooks)
    raise Hand1000Error(f"{webhook_id}: no webhook of hand1000; there are: {known or 'none'}")
