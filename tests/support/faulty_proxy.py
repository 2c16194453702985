"""A proxy before a real S3 server that fails as networks and servers do: errors, broken and slow bodies."""

import contextlib
import http.client
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

FAULTS = ("500", "503", "cut before", "cut within", "slow")
"""An error; asked to slow down; the connection drops before the server hears of the request, or within the answer (the
server has done what it was asked for); the body stops for a while."""

PAUSE = 0.3
"""Of a slow body, in seconds."""


@dataclass
class FaultyProxy:
    """What it does and did; all may be changed while it runs."""

    url: str
    share: float
    """Of the requests that each of `FAULTS` strikes."""
    draws: random.Random
    written: Callable[[str], None] = lambda key: None
    """Is told the key of each object that was put, before the client hears of it."""
    requests: int = 0
    struck: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault(self) -> str | None:
        """What befalls the next request."""
        with self.lock:
            self.requests += 1
            place = self.draws.random()
            found = FAULTS[int(place / self.share)] if place < self.share * len(FAULTS) else None
            if found:
                self.struck[found] += 1
            return found


@contextlib.contextmanager
def faulty_proxy(server: str, *, share: float, seed: int) -> Iterator[FaultyProxy]:  # noqa: C901 (one handler)
    """Stand before the S3 server at the URL `server` for as long as the context lasts."""
    upstream = urlsplit(server)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            fault = proxy.fault()
            if fault in ("500", "503"):
                self.refuse(int(fault), "InternalError" if fault == "500" else "SlowDown")
                return
            if fault == "cut before":
                return self.hang_up()
            # The signature holds for the host that the client named, so that is passed on.
            connection = http.client.HTTPConnection(upstream.hostname or "", upstream.port, timeout=60)
            try:
                connection.request(self.command, self.path, body, dict(self.headers))
                answer = connection.getresponse()
                data = answer.read()
            finally:
                connection.close()
            if self.command == "PUT" and answer.status == 200:
                proxy.written(unquote(urlsplit(self.path).path).lstrip("/"))
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length", "connection", "date", "server"):
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
            if length is not None:
                self.send_header("Content-Length", length)
            self.end_headers()
            half = len(data) // 2
            self.wfile.write(data[:half])
            if fault == "cut within":
                return self.hang_up()
            if fault == "slow":
                self.wfile.flush()
                time.sleep(PAUSE)
            self.wfile.write(data[half:])

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any  # noqa: N815 (http.server names)

        def refuse(self, status: int, code: str) -> None:
            """Answer with one of S3's errors."""
            data = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>on purpose</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(0 if self.command == "HEAD" else len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def hang_up(self) -> None:
            """Drop the connection."""
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that hung up, or was hung up on."""

    with Server(("127.0.0.1", 0), Handler) as listener:
        proxy = FaultyProxy(f"http://127.0.0.1:{listener.server_address[1]}", share, random.Random(seed))
        threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield proxy
        finally:
            listener.shutdown()
