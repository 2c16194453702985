"""The door of a webhook's receiver: headers and bodies, signed or not."""

import base64
import hashlib
import hmac
import json
import random
import time
from pathlib import Path
from typing import Any

from hand1000.registry.webhooks import describe_event, verify_webhook
from tests.fuzzing.harness import Door, RefusedError
from tests.fuzzing.mutations import ODD_TEXTS, damage_bytes, damage_text, damage_value

SECRET = "0123456789abcdef"
EVENT = {
    "entity": "model_version",
    "action": "created",
    "timestamp": "2026-01-01T00:00:00",
    "data": {"name": "hand1000-four-candidates", "version": "3", "tags": {"gates": "passed"}, "source": "x"},
}


def _make_request(rng: random.Random) -> tuple[dict[str, str], bytes]:
    event = EVENT | {"action": rng.choice(("created", "set"))}
    body = json.dumps(damage_value(rng, event)).encode()
    if rng.random() < 0.3:
        body = damage_bytes(rng, body)
    sent, delivery = str(int(time.time())), "d"
    digest = hmac.new(SECRET.encode(), f"{delivery}.{sent}.".encode() + body, hashlib.sha256).digest()
    headers = {
        "X-MLflow-Delivery-Id": delivery,
        "X-MLflow-Timestamp": sent,
        "X-MLflow-Signature": f"v1,{base64.b64encode(digest).decode()}",
    }
    if rng.random() < 0.5:
        name = rng.choice(list(headers))
        headers[name] = rng.choice((*ODD_TEXTS, damage_text(rng, headers[name])))
        if rng.random() < 0.5 and name != "X-MLflow-Signature":  # Signed with the damaged header.
            signed = f"{headers['X-MLflow-Delivery-Id']}.{headers['X-MLflow-Timestamp']}."
            digest = hmac.new(SECRET.encode(), signed.encode("utf-8", "surrogatepass") + body, hashlib.sha256).digest()
            headers["X-MLflow-Signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return headers, body


def _receive(request: tuple[dict[str, str], bytes], _: Path) -> None:
    text: Any = describe_event(verify_webhook(*request, SECRET))
    if text is None:
        raise RefusedError("no event of ours")
    if "\n" in text or len(text) > 2000:
        raise AssertionError(f"a line of {len(text)} characters")


DOORS = [Door("webhook", _make_request, _receive)]
