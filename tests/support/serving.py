"""A tiny model of two gestures, and clients of its server."""

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from hand1000.config.serving import ServingLimits
from hand1000.gestures import gesture_phrase
from hand1000.serving.model import ModelInfo, ServedModel
from tests.support.tiny_pipelines import pipeline_of

GESTURES = ("four", "ok")
PROMPTS = {gesture: f"a red hand, {gesture_phrase(gesture)}" for gesture in GESTURES}
INFO = ModelInfo("models:/hand1000-four-ok/3", "0" * 64)


def served_model(**limits: Any) -> ServedModel:
    """Return the tiny model behind a queue with these limits."""
    return ServedModel(pipeline_of(*GESTURES, strong=True), INFO, ServingLimits(**limits))


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; the names of the headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def post(url: str, body: object, accept: str = "application/json", timeout: float = 60, **headers: str) -> Answer:
    """Send a body, as JSON unless it is bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"Content-Type": "application/json", "Accept": accept, **headers}
    return _open(urllib.request.Request(url, data, fields), timeout)


def get(url: str) -> Answer:
    """Get a page."""
    return _open(urllib.request.Request(url), 60)


def _open(request: urllib.request.Request, timeout: float) -> Answer:
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return Answer(answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read())
    except urllib.error.HTTPError as error:
        return Answer(error.code, {k.lower(): v for k, v in error.headers.items()}, error.read())


def metric(url: str, name: str) -> float:
    """Return a value of the server's metrics, 0 if it has none of that name."""
    lines = get(f"{url}/metrics").body.decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == name)
