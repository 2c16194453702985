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
    """What it serves and how, and what it was asked; all may be changed while it runs."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    if_range: bool = True
    weak: bool = False
    """Whether its ETags are weak ones."""
    status: dict[str, list[int]] = field(default_factory=dict)
    """By path: the answers to come that are errors."""
    drops: dict[str, list[int]] = field(default_factory=dict)
    """By path: after how many bytes the next connections drop."""
    stalls: dict[str, int] = field(default_factory=dict)
    """By path: the byte before which every connection that began before it hangs."""
    conditions: list[str | None] = field(default_factory=list)
    """The If-Range headers that came."""
    asked: list[tuple[str, str | None, int]] = field(default_factory=list)
    """Path, Range header, and the bytes that were sent of the body."""
    hang: threading.Event = field(default_factory=threading.Event)

    def of(self, path: str) -> list[tuple[str | None, int]]:
        """What was asked of one path."""
        return [(header, sent) for asked, header, sent in self.asked if asked == path]


@contextlib.contextmanager
def file_server() -> Iterator[FileServer]:
    """A server on this machine for as long as the context lasts."""
    state = FileServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, wanted = self.path.lstrip("/"), self.headers["Range"]
            state.conditions.append(self.headers["If-Range"])
            data = state.files.get(path, b"")
            errors = state.status.get(path, [])
            code = errors.pop(0) if errors else 200 if path in state.files else 404
            if code >= 400:
                state.asked.append((path, wanted, 0))
                self.send_error(code)
                return
            etag = f'{"W/" if state.weak else ""}"{hashlib.md5(data).hexdigest()}"'
            start, end = 0, len(data)
            same = not state.if_range or self.headers["If-Range"] in (None, etag)
            if state.ranges and wanted and same:
                first, last = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted).groups()
                start, end = int(first), min(int(last or end) + 1, end)
                if start >= len(data):
                    state.asked.append((path, wanted, 0))
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
            state.asked.append((path, wanted, len(body)))
            with contextlib.suppress(ConnectionError):  # Who has enough hangs up.
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
