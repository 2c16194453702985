"""Webhooks of a real MLflow server, received by a real HTTP server."""

import json
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hand1000.cli import main as cli
from hand1000.core.errors import Hand1000Error
from hand1000.registry.connection import connect
from hand1000.registry.review import promote, reject
from hand1000.registry.webhooks import describe_event, verify_webhook
from tests.support.mlflow_server import mlflow_server
from tests.support.reviews import register
from tests.support.short_demo import ROOT

SECRET = "0123456789abcdef0123456789abcdef"


class Receiver:
    """Collects the requests that it receives, and answers with `status`."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.status = 204
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.requests.append((dict(self.headers), body))
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/review"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def lines(self) -> list[str]:
        payloads = [verify_webhook(headers, body, SECRET) for headers, body in list(self.requests)]
        return [line for line in map(describe_event, payloads) if line]


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    environment = {
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_CACHE_TTL": "1",
        "MLFLOW_WEBHOOK_REQUEST_MAX_RETRIES": "0",
    }
    with mlflow_server(tmp_path_factory.mktemp("webhooks"), environment=environment) as uri:
        yield uri


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()


@pytest.fixture
def notify(registry, receiver, monkeypatch, capsys):
    monkeypatch.setenv("HAND1000_WEBHOOK_SECRET", SECRET)

    def run(*arguments: str) -> tuple[int, str]:
        status = cli.main(["review", "notify", *arguments, "--registry", registry])
        output = capsys.readouterr()
        # Progress of a download is on standard error, too.
        return status, (output.err if status else output.out).strip()

    return run


def test_a_reviewer_is_notified_of_all_that_happens(registry, receiver, notify, tmp_path):
    status, identifier = notify("add", receiver.url)
    assert status == 0
    assert notify("add", receiver.url)[0] == 2
    assert receiver.url in notify("list")[1]
    tracking = connect(registry=registry)
    candidate = register(tracking, tmp_path, 1)
    register(tracking, tmp_path, 2, verdict="failed")
    promote(tracking, candidate.uri, who="ada")
    reject(tracking, "four/2", who="ada", why="blurred")
    expected = {
        "models:/hand1000-four-candidates/1 waits for a review; passed: gesture accuracy 0.7, at least 0.5",
        "models:/hand1000-four-candidates/2 waits for a review; failed: gesture accuracy 0.1, at least 0.5",
        "models:/hand1000-four-candidates/1 is approved",
        "models:/hand1000-four-candidates/2 is rejected",
        "models:/hand1000-four/1 is the champion",
    }
    deadline = time.monotonic() + 30
    while set(receiver.lines()) != expected and time.monotonic() < deadline:
        time.sleep(0.1)
    assert sorted(receiver.lines()) == sorted(expected)
    assert notify("remove", identifier) == (0, f"{identifier} is removed")
    assert notify("list") == (0, "no webhooks")


def test_the_receiver_of_the_documentation_prints_what_is_signed(registry, receiver, notify, tmp_path):
    lines, names = [], {"__name__": "receiver"}
    exec(compile((ROOT / "docs/review_receiver.py").read_text(), "review_receiver.py", "exec"), names)
    names["print"] = lambda line, flush: lines.append(line)
    names["Receiver"].log_message = lambda *_: None
    receiver.server.RequestHandlerClass = names["Receiver"]
    _, identifier = notify("add", receiver.url)
    assert notify("test", identifier) == (0, "status 204") and not lines
    register(connect(registry=registry), tmp_path, 1, gesture="like")
    deadline = time.monotonic() + 30
    while not lines and time.monotonic() < deadline:
        time.sleep(0.1)
    notify("remove", identifier)
    assert lines and "models:/hand1000-like-candidates/1 waits for a review" in lines[0]
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(receiver.url, data=b"{}")
    with pytest.raises(urllib.error.HTTPError, match="411"):
        urllib.request.urlopen(urllib.request.Request(receiver.url, b"{}", {"Content-Length": "-1"}))


def test_an_example_reports_the_answer(receiver, notify):
    _, identifier = notify("add", receiver.url)
    assert notify("test", identifier) == (0, "status 204")
    headers, body = receiver.requests[0]
    payload = verify_webhook(headers, body, SECRET)
    assert payload["entity"] and describe_event(payload) is None
    receiver.status = 500
    status, line = notify("test", identifier)
    assert status == 2 and receiver.url in line and "500" in line
    assert notify("test", "nothing")[0] == 2
    notify("remove", identifier)


def test_forged_changed_and_old_requests_are_refused(receiver, notify, monkeypatch):
    _, identifier = notify("add", receiver.url)
    notify("test", identifier)
    notify("remove", identifier)
    headers, body = receiver.requests[0]
    verify_webhook({name.lower(): value for name, value in headers.items()}, body, SECRET)
    for changed in (
        (headers, body.replace(b"example", b"another"), SECRET),
        (headers, body, "another secret"),
        ({**headers, "X-MLflow-Timestamp": str(int(time.time()) + 1)}, body, SECRET),
        ({**headers, "X-MLflow-Delivery-Id": "another"}, body, SECRET),
        ({**headers, "X-MLflow-Signature": "v1,é"}, body, SECRET),
        ({}, body, SECRET),
    ):
        with pytest.raises(Hand1000Error, match="signature"):
            verify_webhook(*changed)
    later = time.time() + 301
    monkeypatch.setattr(time, "time", lambda: later)
    with pytest.raises(Hand1000Error, match="more than 300 s ago"):
        verify_webhook(headers, body, SECRET)


def test_other_models_and_tags_are_ignored():
    created = {"entity": "model_version", "action": "created", "data": {"name": "other-candidates", "version": "1"}}
    tagged = {"entity": "model_version_tag", "action": "set"}
    data = {"name": "hand1000-four-candidates", "version": "1", "key": "hand1000.verdict", "value": "passed"}
    assert describe_event(created) is None and describe_event({**tagged, "data": data}) is None
    assert describe_event(json.loads('{"entity": "prompt", "action": "created", "data": {}}')) is None


def test_what_cannot_be_added(runs, receiver, notify, monkeypatch, capsys):
    monkeypatch.setenv("HAND1000_WEBHOOK_SECRET", SECRET)
    assert cli.main(["review", "notify", "add", receiver.url, "--registry", str(runs)]) == 2
    assert "only an MLflow server calls webhooks" in capsys.readouterr().err
    assert "not an address" in notify("add", "ftp://host/path")[1]
    monkeypatch.setenv("HAND1000_WEBHOOK_SECRET", "short")
    status, line = notify("add", receiver.url)
    assert status == 2 and "openssl rand" in line
