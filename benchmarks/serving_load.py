"""Put a server under load and check every answer: `python -m benchmarks.serving_load --url http://127.0.0.1:8000`.

Sends many requests at once, of several lengths, seeds and settings, and compares each image with the one drawn alone.
With `--command`, it starts the server itself, kills it under load, starts it again, and reports its memory:

    python -m benchmarks.serving_load --command "hand1000 serve --model models:/hand1000-four@champion --port 8000"
"""

import argparse
import contextlib
import http.client
import json
import shlex
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

_START_SECONDS = 180
_DISTINCT = 12
"""Number of different requests, each of which is also drawn alone."""


def main(arguments: list[str] | None = None) -> int:
    """Run the load; return 1 if an answer is wrong, lost or miscounted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the server (default: http://127.0.0.1:8000)")
    parser.add_argument("--command", type=shlex.split, help="command that starts the server")
    parser.add_argument("--requests", type=int, default=200, help="requests at once (default: 200)")
    parser.add_argument("--steps", type=int, default=20, help="most sampling steps of a request (default: 20)")
    parser.add_argument("--prompt", help="prompt (default: the example of the server's OpenAPI document)")
    options = parser.parse_args(arguments)
    faults: list[str] = []
    with _Server(options.command, options.url) as server:
        bodies = _make_bodies(options.prompt or _example_prompt(server.url), options.steps)
        alone = [_post_until_drawn(server.url, body) for body in bodies]
        faults += _check_burst(server, bodies, alone, options.requests)
        faults += _check_hang_up(server.url, bodies[0])
        if options.command:
            faults += _check_kill(server, bodies, alone, options.requests)
    print("\n".join(faults) or "no fault")
    return 1 if faults else 0


class _Server:
    """The process of the server, if this script starts it."""

    def __init__(self, command: list[str] | None, url: str) -> None:
        self.command, self.url = command, url
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> "_Server":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            print(f"exit status after SIGTERM: {self._process.wait(60)}")

    def start(self) -> None:
        """Start it and wait until it is ready."""
        if self.command:
            self._process = subprocess.Popen(self.command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + _START_SECONDS
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/readyz", timeout=5):
                return
            if time.monotonic() > deadline or (self._process is not None and self._process.poll() is not None):
                sys.exit(f"{self.url}: not ready; see the server's own messages")
            time.sleep(0.2)

    def kill(self) -> None:
        """Kill it without a warning."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def memory(self) -> float | None:
        """Return its resident memory in MB, where that can be read."""
        status = Path(f"/proc/{self._process.pid}/status") if self._process is not None else None
        if status is None or not status.exists():
            return None
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) / 1024


def _example_prompt(url: str) -> str:
    with urllib.request.urlopen(f"{url}/openapi.json", timeout=30) as answer:
        body = json.load(answer)["paths"]["/generate"]["post"]["requestBody"]
    return body["content"]["application/json"]["examples"]["short"]["value"]["prompt"]


def _make_bodies(prompt: str, steps: int) -> list[dict[str, Any]]:
    return [
        {"prompt": prompt, "seed": index, "num_inference_steps": 1 + (index * 7) % steps} for index in range(_DISTINCT)
    ]


def _post(url: str, body: dict[str, Any]) -> tuple[int | str, bytes]:
    """Return the status and the body of an answer, or how the connection ended."""
    headers = {"Content-Type": "application/json", "Accept": "image/png"}
    request = urllib.request.Request(f"{url}/generate", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=600) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except (OSError, http.client.HTTPException):
        return "no connection", b""


def _post_until_drawn(url: str, body: dict[str, Any]) -> bytes:
    while True:
        status, data = _post(url, body)
        if status == 200:
            return data
        if status != 503:
            sys.exit(f"{body}: {status}: {data.decode(errors='replace')[:300]}")
        time.sleep(0.5)


def _read_metrics(url: str) -> dict[str, float]:
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as answer:
        lines = [line for line in answer.read().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def _send_burst(url: str, bodies: list[dict[str, Any]], count: int) -> Iterator[tuple[int, int | str, bytes]]:
    """Send `count` requests at once; yield the number of the body, the status and the answer of each."""
    barrier = threading.Barrier(count)

    def send(index: int) -> tuple[int, int | str, bytes]:
        barrier.wait()
        return index % len(bodies), *_post(url, bodies[index % len(bodies)])

    with ThreadPoolExecutor(count) as pool:
        yield from pool.map(send, range(count))


def _check_burst(server: _Server, bodies: list[dict[str, Any]], alone: list[bytes], count: int) -> list[str]:
    before, memory, start = _read_metrics(server.url), server.memory(), time.monotonic()
    answers = list(_send_burst(server.url, bodies, count))
    after = _read_metrics(server.url)
    statuses = Counter(status for _, status, _ in answers)
    wrong = sum(data != alone[index] for index, status, data in answers if status == 200)
    print(f"{count} requests at once: {dict(statuses)}, {wrong} wrong, {time.monotonic() - start:.1f} s")
    if memory is not None:
        print(f"memory: {memory:.0f} MB before, {server.memory():.0f} MB after")
    faults = [f"{wrong} images differ from those drawn alone"] if wrong else []
    for status in {*statuses} - {200, 503}:
        faults.append(f"{statuses[status]} answers: {status}")
    for status in (200, 503):
        name = f'hand1000_requests_total{{status="{status}"}}'
        counted = after.get(name, 0) - before.get(name, 0)
        print(f"counted in /metrics: {counted:g} with status {status}")
        if counted != statuses[status]:
            faults.append(f"{status}: {statuses[status]} received, {counted:g} counted")
    return faults


def _check_hang_up(url: str, body: dict[str, Any]) -> list[str]:
    """Hang up in the middle of a long request and see how many steps follow."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    begin = _read_metrics(url)["hand1000_steps_total"]
    long = json.dumps({**body, "num_inference_steps": 1000})
    connection.request("POST", "/generate", long, {"Content-Type": "application/json"})
    while _read_metrics(url)["hand1000_steps_total"] < begin + 2:
        time.sleep(0.01)
    assert connection.sock is not None
    connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()
    stopped = _read_metrics(url)
    time.sleep(2)
    steps = _read_metrics(url)["hand1000_steps_total"] - stopped["hand1000_steps_total"]
    print(f"after a client hung up: {steps:g} further steps of {1000}")
    # One may have been in progress, and one may have begun between the end and the count.
    return [f"{steps:g} steps after the client hung up"] if steps > 2 else []


def _check_kill(server: _Server, bodies: list[dict[str, Any]], alone: list[bytes], count: int) -> list[str]:
    """Kill the server under load, start it again, and draw the same images."""
    with ThreadPoolExecutor(1) as pool:
        burst = pool.submit(lambda: list(_send_burst(server.url, bodies, count)))
        time.sleep(2)
        server.kill()
        answers = burst.result()
    statuses = Counter(status for _, status, _ in answers)
    wrong = sum(data != alone[index] for index, status, data in answers if status == 200)
    print(f"killed under load: {dict(statuses)}, {wrong} wrong")
    server.start()
    again = sum(_post_until_drawn(server.url, body) != image for body, image in zip(bodies, alone, strict=True))
    print(f"started again: {len(bodies) - again} of {len(bodies)} images are the same")
    faults = [f"{wrong} images differ while the server was killed"] if wrong else []
    return faults + ([f"{again} images differ after the start"] if again else [])


if __name__ == "__main__":
    sys.exit(main())
