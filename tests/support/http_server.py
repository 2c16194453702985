"""A real HTTP server with range requests, whose connections can drop or hang."""

import contextlib
import hashlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """The files of the server, its behavior and its requests; all may be changed while it runs."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    if_range: bool = True
    weak: bool = False
    """Whether the server sends weak ETags."""
    status: dict[str, list[int]] = field(default_factory=dict)
    """By path: statuses of the next answers, which are errors."""
    drops: dict[str, list[int]] = field(default_factory=dict)
    """By path: number of bytes after which each of the next connections drops."""
    stalls: dict[str, int] = field(default_factory=dict)
    """By path: offset at which every connection that starts before it hangs."""
    conditions: list[str | None] = field(default_factory=list)
    """If-Range headers of all requests."""
    requests: list[tuple[str, str | None, int]] = field(default_factory=list)
    """Path, Range header and number of sent body bytes of all requests."""
    hang: threading.Event = field(default_factory=threading.Event)

    def requests_for(self, path: str) -> list[tuple[str | None, int]]:
        """Range header and number of sent body bytes of the requests for one path."""
        return [(header, sent) for requested, header, sent in self.requests if requested == path]


@contextlib.contextmanager
def file_server() -> Iterator[FileServer]:
    """Serve on the loopback until the block ends."""
    state = FileServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, byte_range = self.path.lstrip("/"), self.headers["Range"]
            state.conditions.append(self.headers["If-Range"])
            data = state.files.get(path, b"")
            errors = state.status.get(path, [])
            code = errors.pop(0) if errors else 200 if path in state.files else 404
            if code >= 400:
                state.requests.append((path, byte_range, 0))
                self.send_error(code)
                return
            etag = f'{"W/" if state.weak else ""}"{hashlib.md5(data).hexdigest()}"'
            start, end = 0, len(data)
            same = not state.if_range or self.headers["If-Range"] in (None, etag)
            if state.ranges and byte_range and same:
                first, last = re.fullmatch(r"bytes=(\d+)-(\d*)", byte_range).groups()
                start, end = int(first), min(int(last or end) + 1, end)
                if start >= len(data):
                    state.requests.append((path, byte_range, 0))
                    self.send_error(416)
                    return
                code = 206
                self.send_response(code)
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
            else:
                self.send_response(code)
            self.send_header("ETag", etag)
            self.send_header("Content-Length", str(end - start))
            self.end_headers()
            drops = state.drops.get(path, [])
            cut = drops.pop(0) if drops else None
            stall = state.stalls.get(path, 0)
            stalls = start < stall < end
            body = data[start : min(end, end if cut is None else start + cut, stall if stalls else end)]
            state.requests.append((path, byte_range, len(body)))
            with contextlib.suppress(ConnectionError):  # The client may hang up early.
                self.wfile.write(body)
                if stalls:
                    state.hang.wait(300)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.hang.set()
        server.shutdown()
        thread.join()
        server.server_close()
