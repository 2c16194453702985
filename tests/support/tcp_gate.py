"""A gate before a server: open, closed (connections are refused), or silent (connections never get an answer)."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

from tests.support.mlflow_server import free_port


class TcpGate:
    """Forwards connections to a server while it is open.

    Attributes:
        url: Address of the gate.
        silent: Whether accepted connections are left without an answer.
    """

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.silent = False
        self._listener: socket.socket | None = None
        self._connections: list[socket.socket] = []

    def open(self) -> None:
        """Accept connections."""
        self._listener = socket.create_server(("127.0.0.1", self._port), backlog=64)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def close(self) -> None:
        """Refuse connections, and drop those that there are."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for connection in self._connections:
            # The threads may still wait in it, and a close alone would not wake them.
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._connections.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self._connections.append(client)
            if self.silent:
                continue
            server = socket.create_connection((self._target.hostname, self._target.port))
            self._connections.append(server)
            for pair in ((client, server), (server, client)):
                threading.Thread(target=_forward, args=pair, daemon=True).start()


def _forward(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def tcp_gate(url: str) -> Iterator[TcpGate]:
    """Provide an open gate before the server at `url`."""
    gate = TcpGate(url)
    gate.open()
    try:
        yield gate
    finally:
        gate.close()
