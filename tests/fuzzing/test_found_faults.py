"""Inputs on which an earlier version ended with a traceback, and what is said about them now."""

import base64
import hashlib
import hmac
import time
from pathlib import Path
from typing import Any

import pytest

from hand1000.core.errors import Hand1000Error
from tests.fuzzing.doors.webhooks import SECRET
from tests.fuzzing.harness import RefusedError, find_doors


def _sign(body: bytes, sent: str = "") -> tuple[dict[str, str], bytes]:
    sent = sent or str(int(time.time()))
    digest = hmac.new(SECRET.encode(), f"d.{sent}.".encode("utf-8", "surrogatepass") + body, hashlib.sha256).digest()
    signature = f"v1,{base64.b64encode(digest).decode()}"
    return {"X-MLflow-Delivery-Id": "d", "X-MLflow-Timestamp": sent, "X-MLflow-Signature": signature}, body


def _answer(*headers: str, status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", "abcde"]).encode()


@pytest.mark.parametrize(
    ("door", "value", "message"),
    [
        ("annotations", b'{"0": {"bboxes": [], "labels": ["\xff"], "user_id": "p"}}', "annotation: .*utf-8"),
        ("annotations", b'{"0": ' + b"[" * 5000 + b"]" * 5000 + b"}", "annotation: "),
        ("annotations", b'{"\xff": {}}', "not JSON"),
        ("records of an image set", b'{"file_name": "0.png", "seed": ' + b"9" * 5000 + b"}", "line 1: not JSON"),
        ("records of an image set", b'{"text": "\\ud800"}', "line 1: not JSON: half a surrogate pair"),
        ("metadata.jsonl", b'{"file_name": "0.png", "file_name": "1.png"}', "file_name is given several times"),
        ("prompts file", b"a hand\n\xff", "cannot be read: .*give a text file in UTF-8"),
        ("webhook", lambda: _sign(b"{}"), "no event of ours"),
        ("webhook", lambda: _sign(b"[]"), "webhook: the body is not a JSON object"),
        ("webhook", lambda: _sign(b"\xff"), "webhook: not JSON: byte 0 is not UTF-8"),
        (
            "webhook",
            lambda: _sign(b'{"entity": "model_version", "action": "set", "data": [1]}'),
            "no event of ours",
        ),
        ("webhook", lambda: _sign(b"{}", "\u0661" * 10), "webhook: sent at"),
        ("webhook", lambda: _sign(b"{}", "9" * 5000), "webhook: sent at 999.*, more than"),
        ("webhook", lambda: _sign(b"{}", "\ud800"), "webhook: sent at"),
        ("HTTP answer to a download", _answer("Content-Length: +5"), "does not send the length"),
        ("HTTP answer to a download", _answer("Content-Length: -1"), "does not send the length"),
        ("HTTP answer to a download", _answer("Content-Length: 5, 5"), "does not send the length"),
        (
            "HTTP answer to a download",
            _answer(f"Content-Range: bytes 0-4/{'9' * 5000}", "Content-Length: 5", status="206 Partial Content"),
            "does not send the length",
        ),
        ("cron expression", "9" * 5000 + " * * * *", "minute '9999.*is no number"),
        ("settings file", b'preset: demo\nevaluation: {clip: "\\ud800"}', "line 2, .*half a surrogate pair"),
        ("settings file", b'preset: demo\nevaluation: {clip: "\\0"}', "line 2, .*NUL or half a surrogate pair"),
    ],
)
def test_what_broke_before_is_refused_in_one_line(door: str, value: Any, message: str, tmp_path: Path) -> None:
    (call,) = (entry.call for entry in find_doors() if entry.name == door)
    with pytest.raises((Hand1000Error, RefusedError), match=message) as error:
        # A webhook is signed now: its age counts.
        call(value() if callable(value) else value, tmp_path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 2000
