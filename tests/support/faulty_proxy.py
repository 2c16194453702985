"""A proxy before a real S3 server that fails as networks and servers do: errors, dropped and slow responses."""

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
from urllib.parse import SplitResult, unquote, urlsplit

FAULTS = ("500", "503", "cut before", "cut within", "slow")
"""An internal error; a request to slow down; a connection that drops before the server receives the request, or within
the response, when the server has done its work; a body that pauses."""

PAUSE_SECONDS = 0.3


@dataclass
class FaultyProxy:
    """Settings and counts of a proxy; the settings may change while it runs."""

    url: str
    share: float
    """Fraction of the requests that each of `FAULTS` hits."""
    random: random.Random
    deny: Callable[[str, str], tuple[int, str] | None] = lambda method, path: None
    """Called with a request's method and path; returns status and code of the error that answers it, or None."""
    edit: Callable[[str, str, bytes], bytes] = lambda method, path, body: body
    """Called with a request's method and path and the body of its response; returns the body that the client gets."""
    written: Callable[[str], None] = lambda key: None
    """Called with the key of each object that was stored, before the client receives the response."""
    requests: int = 0
    struck: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault(self) -> str | None:
        """Choose the fault of the next request."""
        with self.lock:
            self.requests += 1
            position = self.random.random()
            fault = FAULTS[int(position / self.share)] if position < self.share * len(FAULTS) else None
            if fault:
                self.struck[fault] += 1
            return fault


class ProxyHandler(BaseHTTPRequestHandler):
    """Forwards requests, or not."""

    protocol_version = "HTTP/1.1"
    proxy: FaultyProxy
    upstream: SplitResult

    def handle_any(self) -> None:
        request_body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        fault = self.proxy.fault()
        if denied := self.proxy.deny(self.command, self.path):
            self.refuse(*denied)
        elif fault in ("500", "503"):
            self.refuse(int(fault), "InternalError" if fault == "500" else "SlowDown")
        elif fault == "cut before":
            self.hang_up()
        else:
            self.forward(request_body, fault)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any  # noqa: N815 (http.server's names)

    def forward(self, request_body: bytes, fault: str | None) -> None:
        """Send the request to the server and its response to the client."""
        # The headers keep the host that the client named, because the signature covers it.
        connection = http.client.HTTPConnection(self.upstream.hostname or "", self.upstream.port, timeout=60)
        try:
            connection.request(self.command, self.path, request_body, dict(self.headers))
            response = connection.getresponse()
            data = self.proxy.edit(self.command, self.path, response.read())
        finally:
            connection.close()
        if self.command == "PUT" and response.status == 200:
            self.proxy.written(unquote(urlsplit(self.path).path).lstrip("/"))
        self.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in ("transfer-encoding", "content-length", "connection", "date", "server"):
                self.send_header(name, value)
        length = response.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
        if length is not None:
            self.send_header("Content-Length", length)
        self.end_headers()
        half = len(data) // 2
        self.wfile.write(data[:half])
        if fault == "cut within":
            self.hang_up()
            return
        if fault == "slow":
            self.wfile.flush()
            time.sleep(PAUSE_SECONDS)
        self.wfile.write(data[half:])

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
        """Log nothing."""


class ProxyServer(ThreadingHTTPServer):
    """Serves each connection in a thread."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Ignore clients whose connection has dropped."""


@contextlib.contextmanager
def faulty_proxy(server: str, *, share: float, seed: int) -> Iterator[FaultyProxy]:
    """Run a proxy before the S3 server at the URL `server` until the block ends."""
    with ProxyServer(("127.0.0.1", 0), type("Handler", (ProxyHandler,), {"upstream": urlsplit(server)})) as listener:
        proxy = FaultyProxy(f"http://127.0.0.1:{listener.server_address[1]}", share, random.Random(seed))
        listener.RequestHandlerClass.proxy = proxy
        threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield proxy
        finally:
            listener.shutdown()
