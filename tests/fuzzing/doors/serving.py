"""Doors of `hand1000 serve`: bodies and headers of requests, and the bytes of a connection."""

import contextlib
import functools
import json
import logging
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from hand1000.serving.app import create_app
from hand1000.storage.http import HttpFile
from tests.fuzzing.harness import Door, RefusedError
from tests.fuzzing.mutations import ODD_TEXTS, damage_bytes, damage_text, damage_value
from tests.support.serving import PROMPTS, served_model

BODY = {"prompt": PROMPTS["four"], "gesture": "four", "seed": 7, "num_images": 1, "num_inference_steps": 1, "mu": 0.5}
BODY |= {"autoguidance_interval": [0.0, 1.0], "guidance_scale": 1.0}
HEADERS = {"Host": "x", "Content-Type": "application/json", "Accept": "image/png", "Connection": "close"}
LENGTHS = ("+5", "-1", "5, 5", "0x10", "1e3", "9" * 30, "", " ", "1_0", "٣", "5;a", "nan", "18446744073709551616")
BODIES = (b"[" * 20_000, b'{"a":' * 3000, b"9" * 9000, b"", b"\0", b'"\\ud800"', b'{"seed":1,"seed":2}')
VALUES = ("chunked", "100-continue", "gzip", "close", "text/html")
RANGES = (f"bytes 0-4/{'9' * 5000}", "bytes 9-4/5", "*/5", "bytes 0-4/*")
_SECONDS = 0.3
_PATIENCE = 1.0
"""Seconds after which the client sends no more; uvicorn waits for the end of unfinished headers."""


class _Faults(logging.Handler):
    """Keeps what the server logs with a traceback."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage() + (f": {record.exc_info[1]!r}" if record.exc_info else ""))


@functools.cache
def _server() -> tuple[int, _Faults]:
    """Start the server in this process, once; return its port and what it logs."""
    faults = _Faults()
    logging.getLogger().addHandler(faults)
    model = served_model(timeout_seconds=_SECONDS, max_image_steps=4, max_queue=8)
    server = uvicorn.Server(uvicorn.Config(create_app(model), log_config=None, port=0))
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=server.run, args=([listener],), daemon=True).start()
    return listener.getsockname()[1], faults


def _make_request(rng: random.Random) -> bytes:
    """Return the bytes of a request in which the body, the headers, the request line or the framing are damaged."""
    kind = rng.randrange(8)
    body, headers = json.dumps(BODY).encode(), dict(HEADERS)
    line = "POST /generate HTTP/1.1"
    if kind < 4:
        value = damage_value(rng, BODY)
        body = json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
        body = damage_bytes(rng, body) if kind == 0 else body
        if kind == 3 and rng.random() < 0.3:
            body = rng.choice(BODIES)
    headers["Content-Length"] = str(len(body))
    if kind == 4:
        headers["Content-Length"] = rng.choice(LENGTHS)
    if kind == 5:
        name = rng.choice((*headers, "Transfer-Encoding", "Connection", "Expect", "Content-Encoding", "X" * 5000))
        headers[name] = rng.choice((*ODD_TEXTS, *VALUES, damage_text(rng, "image/png")))
    if kind == 6:
        line = rng.choice(
            (
                damage_text(rng, line),
                "GET /" + "%" * 50,
                "GET /readyz?x HTTP/1.1",
                "POST /generate?steps=1 HTTP/1.1",
                "PUT /generate HTTP/1.1",
                "GET /metrics HTTP/0.9",
            )
        )
    text = "\r\n".join([line, *(f"{name}: {value}" for name, value in headers.items()), "", ""])
    data = text.encode("utf-8", "surrogatepass") + body
    return damage_bytes(rng, data) if kind == 7 else data


def _send(data: bytes, _: Path) -> None:
    port, faults = _server()
    faults.texts.clear()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.settimeout(_PATIENCE)
        answer = b""
        with contextlib.suppress(ConnectionError, TimeoutError):
            connection.sendall(data)
            while chunk := connection.recv(1 << 16):
                answer += chunk
    if faults.texts:
        raise AssertionError(faults.texts[0][:500])
    if not answer:
        raise RefusedError("the connection is closed")
    status = int(answer.split(b" ", 2)[1])
    if status in (500, 502) or status >= 505:
        raise AssertionError(answer[:500])
    if status >= 400:
        head, _separator, body = answer.partition(b"\r\n\r\n")
        message = ""
        if b"application/json" in head and b'"error"' in body:
            message = json.JSONDecoder().raw_decode(body.decode())[0]["error"]  # A second answer may follow.
        raise RefusedError(message or f"HTTP {status}")


@contextmanager
def _answering(data: bytes) -> Iterator[str]:
    """Serve one connection after another, each with these bytes, and give the address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(1)
                    with contextlib.suppress(OSError):
                        connection.recv(1 << 16)
                        connection.sendall(data)

        threading.Thread(target=answer, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/file"
        listener.shutdown(socket.SHUT_RDWR)


def _make_answer(rng: random.Random) -> bytes:
    """Return an answer of a server of files, of which the status line or a header is damaged."""
    part = rng.random() < 0.5
    headers: dict[str, Any] = {"Content-Length": "5", "ETag": '"a"', "Last-Modified": "Mon, 01 Jan 2026 00:00:00 GMT"}
    if part:
        headers["Content-Range"] = "bytes 0-4/5"
    line = "HTTP/1.1 206 Partial Content" if part else "HTTP/1.1 200 OK"
    kind = rng.randrange(5)
    if kind == 0:
        line = damage_text(rng, line)
    elif kind == 1:
        headers["Content-Length"] = rng.choice(LENGTHS)
    elif kind == 2:
        headers["Content-Range"] = rng.choice((damage_text(rng, "bytes 0-4/5"), *RANGES))
    elif kind == 3:
        headers[rng.choice([*headers, "Location"])] = rng.choice(ODD_TEXTS)
    data = "\r\n".join([line, *(f"{name}: {value}" for name, value in headers.items()), "", "abcde"])
    encoded = data.encode("utf-8", "surrogatepass")
    return damage_bytes(rng, encoded) if kind == 4 else encoded


def _download(data: bytes, _: Path) -> None:
    from hand1000.storage import http as module

    module.RETRY_DELAYS = ()  # type: ignore[assignment]
    module._TIMEOUT_SECONDS = 1  # type: ignore[attr-defined]
    with _answering(data) as url:
        file = HttpFile(url, remedy="run it again")
        try:
            file.connect()
            file.read(10)
        except module.RestartDownloadError as error:
            raise RefusedError("begins again") from error
        finally:
            file.close()


DOORS = [
    Door("HTTP request", _make_request, _send, weight=0.5),
    Door("HTTP answer to a download", _make_answer, _download, weight=0.5),
]
