"""The process that serves: uvicorn, its logs and its end."""

import contextlib
import logging
import math
import signal
import socket
import threading
from collections.abc import Iterator
from types import FrameType

import uvicorn

from hand1000.core.errors import Hand1000Error, one_line
from hand1000.serving.app import create_app
from hand1000.serving.model import ServedModel

logger = logging.getLogger(__name__)

_KEEP_ALIVE_SECONDS = 5
_BACKLOG = 1024
_FURTHER_CONNECTIONS = 1024
"""Connections beside those that wait in the queue; uvicorn itself refuses more, so that they cannot fill the memory."""
_ANSWER_SECONDS = 5
"""Seconds to answer 503 to what was not finished within the grace period."""


class _Server(uvicorn.Server):
    """Refuses new requests from the first SIGTERM or SIGINT on; uvicorn itself waits for those in flight."""

    def __init__(self, config: uvicorn.Config, model: ServedModel, grace_seconds: float) -> None:
        super().__init__(config)
        self._model = model
        self._grace_seconds = grace_seconds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; a second SIGINT ends the server at once."""
        if not self.should_exit:
            # A thread, because this one may hold the lock of the queue while the signal interrupts it.
            stop = threading.Thread(target=self._model.worker.stop, args=(self._grace_seconds,), daemon=True)
            stop.start()
            logger.info("%s: finishing the accepted requests", signal.Signals(sig).name)
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals while the server runs; the process then ends with status 0, not by the signal again."""
        handlers = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)


def run_server(model: ServedModel, host: str, port: int, grace_seconds: float) -> None:
    """Serve until SIGTERM or SIGINT, then finish the accepted requests within `grace_seconds`.

    Raises:
        Hand1000Error: The address is in use or not one of this machine.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    config = uvicorn.Config(
        create_app(model),
        log_config=None,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=math.ceil(grace_seconds) + _ANSWER_SECONDS,
        backlog=_BACKLOG,
        limit_concurrency=model.limits.max_queue + _FURTHER_CONNECTIONS,
    )
    with _listen(host, port) as listener:
        logger.info(
            "serving %s, weights %s, at http://%s:%d/docs",
            model.info.version,
            model.info.digest[:12],
            host,
            listener.getsockname()[1],
        )
        try:
            _Server(config, model, grace_seconds).run(sockets=[listener])
        finally:
            model.worker.stop(0)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        return listener
    except OSError as error:
        raise Hand1000Error(f"--host {host} --port {port}: {one_line(error)}; choose another") from error
