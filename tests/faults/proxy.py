"""A proxy in a process of its own, before an S3 or MLflow server; a file says how it fails.

`python -m tests.faults.proxy http://SERVER FOLDER` writes its port to FOLDER/port and reads FOLDER/mode.
"""

import contextlib
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.support.faulty_proxy import FaultyProxy, ProxyHandler, ProxyServer

STALE_SECONDS = 1.5
"""How long a listing does not show a new object."""


@dataclass(frozen=True)
class Mode:
    """How the proxy fails from now on.

    Attributes:
        fault: `gone`, `slow`, `cutting`, `errors`, `stale`, `revoked`, `read-only`, or "" for none.
        after: Number of requests that are answered before it begins.
        seconds: How long it lasts; 0 does not limit it.
        share: Fraction of the requests that it hits.
        seed: Seed of the choice.
    """

    fault: str = ""
    after: int = 0
    seconds: float = 0.0
    share: float = 1.0
    seed: int = 0


class _State:
    """The mode and what has happened since it was set."""

    def __init__(self, path: Path) -> None:
        self.path, self.lock = path, threading.Lock()
        self.written: dict[str, float] = {}
        self.stamp = -1
        self.set(Mode())

    def set(self, mode: Mode) -> None:
        self.mode, self.requests, self.began = mode, 0, 0.0
        self.random = random.Random(mode.seed)

    def fault(self) -> str:
        """Choose the fault of the next request."""
        with self.lock:
            stamp = self.path.stat().st_mtime_ns if self.path.exists() else 0
            if stamp != self.stamp:
                self.stamp = stamp
                self.set(Mode(**json.loads(self.path.read_text())) if stamp else Mode())
            self.requests += 1
            if self.requests <= self.mode.after or self.random.random() >= self.mode.share:
                return ""
            self.began = self.began or time.monotonic()
            over = self.mode.seconds and time.monotonic() - self.began > self.mode.seconds
            return "" if over else self.mode.fault

    def edit(self, method: str, path: str, data: bytes) -> bytes:
        """Remove new objects from a listing that is to be stale."""
        if self.mode.fault != "stale" or method != "GET" or "list-type=2" not in path:
            return data
        now, bucket = time.monotonic(), urlsplit(path).path.rstrip("/")
        new = {name for name, written in self.written.items() if now - written < STALE_SECONDS}

        def shorten(match: re.Match[bytes]) -> bytes:
            return b"" if f"{bucket}/{unquote(match.group(1).decode())}" in new else match.group(0)

        return re.sub(rb"<Contents>.*?<Key>(.*?)</Key>.*?</Contents>", shorten, data, flags=re.DOTALL)


class _Handler(ProxyHandler):
    state: _State

    def handle_any(self) -> None:
        """Answer one request."""
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        fault, writes = self.state.fault(), self.command in ("PUT", "POST", "DELETE")
        if fault == "gone":
            self.hang_up()
        elif fault == "errors":
            self.refuse(503, "SlowDown")
        elif fault == "revoked":
            self.refuse(403, "InvalidAccessKeyId")
        elif fault == "read-only" and writes:
            self.refuse(403, "AccessDenied")
        else:
            if self.command == "PUT":
                self.state.written[unquote(urlsplit(self.path).path)] = time.monotonic()
            self.forward(body, {"cutting": "cut within", "slow": "slow"}.get(fault))

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_PATCH = handle_any  # noqa: N815 (http.server's names)


@dataclass(frozen=True)
class Proxy:
    """A running proxy: its URL and the file that controls it."""

    url: str
    path: Path

    def set(self, mode: Mode) -> None:
        """Change how it fails."""
        temporary = self.path.with_suffix(".new")
        temporary.write_text(json.dumps(asdict(mode)))
        os.replace(temporary, self.path)


@contextlib.contextmanager
def proxy_before(server: str, folder: Path) -> Iterator[Proxy]:
    """Run a proxy before `server` until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("port", "mode"):
        (folder / name).unlink(missing_ok=True)
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    process = subprocess.Popen([sys.executable, "-m", "tests.faults.proxy", server, str(folder)], env=environment)
    try:
        deadline = time.monotonic() + 60
        while not (folder / "port").exists():
            assert process.poll() is None and time.monotonic() < deadline, "the proxy did not start"
            time.sleep(0.05)
        yield Proxy(f"http://127.0.0.1:{(folder / 'port').read_text()}", folder / "mode")
    finally:
        process.kill()
        process.wait()


def main(server: str, folder: Path) -> None:
    """Run the proxy until the process is killed."""
    state = _State(folder / "mode")
    forwarding = FaultyProxy("", 0.0, random.Random(0), edit=state.edit)
    fields = {"upstream": urlsplit(server), "state": state, "proxy": forwarding}
    handler = type("Handler", (_Handler,), fields)
    with ProxyServer(("127.0.0.1", 0), handler) as listener:
        (folder / "port.new").write_text(str(listener.server_address[1]))
        (folder / "port.new").rename(folder / "port")
        listener.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
