"""The one thread that draws: a bounded queue of requests, from which it takes compatible images in batches."""

import contextlib
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hand1000.config.serving import ServingLimits
from hand1000.core.errors import Hand1000Error
from hand1000.serving.drawing import ImageDrawer
from hand1000.serving.errors import CanceledError, UnavailableError
from hand1000.serving.image_request import ImageSpec

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger(__name__)

_IDLE_SECONDS = 1.0
"""Seconds without a request after which the thread ends."""

_SMOOTHING = 0.1
"""Weight of the last step in the average time of a step."""


class Job:
    """A request in the queue.

    Attributes:
        specs: Its images.
        future: Resolves to the images in order, or to the error that ended the job.
    """

    def __init__(self, specs: Sequence[ImageSpec]) -> None:
        self.specs = tuple(specs)
        self.future: Future[list[Image.Image]] = Future()
        self._images: dict[int, Image.Image] = {}
        self._taken = 0

    @property
    def is_over(self) -> bool:
        """Whether nobody waits for further images."""
        return self.future.done()

    @property
    def steps_left(self) -> int:
        """Images that no batch has yet, times their steps."""
        return (len(self.specs) - self._taken) * self.specs[0].num_inference_steps

    def take(self, count: int) -> list[int]:
        """Return the indices of at most `count` images that no batch has yet."""
        start = self._taken
        self._taken = min(start + count, len(self.specs))
        return list(range(start, self._taken))

    def add(self, index: int, image: "Image.Image") -> None:
        """Add a finished image; the last one resolves the future."""
        self._images[index] = image
        if len(self._images) == len(self.specs):
            with contextlib.suppress(InvalidStateError):
                self.future.set_result([self._images[position] for position in range(len(self.specs))])

    def fail(self, error: BaseException) -> None:
        """End the job; the worker drops its images at the end of the current step."""
        with contextlib.suppress(InvalidStateError):
            self.future.set_exception(error)


@dataclass
class WorkerCounts:
    """What a worker has done since it started: finished images, steps of batches, and seconds of drawing."""

    images: int = 0
    steps: int = 0
    seconds: float = 0.0


class _AbandonedError(Exception):
    """Nobody waits for any image of the batch."""


class Worker:
    """A queue and the thread that serves it; all methods may be called from any thread.

    The thread ends when there is nothing to do and starts with the next request, so that a model which is no longer
    used can be freed.

    Args:
        draw: Draws a batch, from `drawing.make_drawer`.
        limits: `batch_size` and `max_queue` are used.

    Attributes:
        counts: What it has done so far.
    """

    def __init__(self, draw: ImageDrawer, limits: ServingLimits) -> None:
        self.counts = WorkerCounts()
        self._draw = draw
        self._limits = limits
        self._condition = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._is_stopping = False
        self._seconds_per_step = 0.0
        self._thread: threading.Thread | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the thread works, or has nothing to do."""
        thread = self._thread
        return thread is None or thread.is_alive()

    @property
    def is_accepting(self) -> bool:
        """Whether a request would be accepted now."""
        return self.is_alive and not self._is_stopping and len(self._waiting) < self._limits.max_queue

    @property
    def queue_length(self) -> int:
        """Number of requests with images that no batch has yet."""
        return len(self._waiting)

    def submit(self, specs: Sequence[ImageSpec]) -> Job:
        """Put a request into the queue.

        Raises:
            UnavailableError: The queue is full, or the worker is stopping.
        """
        job = Job(specs)
        with self._condition:
            if self._is_stopping or not self.is_alive:
                raise UnavailableError("the server is stopping; try again later or at another one", 10)
            if len(self._waiting) >= self._limits.max_queue:
                raise UnavailableError(
                    f"the queue is full with {len(self._waiting)} requests; try again later", self._estimate_seconds()
                )
            self._waiting.append(job)
            self._condition.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="hand1000-worker", daemon=True)
                self._thread.start()
        return job

    def cancel(self, job: Job, error: Hand1000Error | None = None) -> None:
        """End a job with `error`, by default a `CanceledError`: the worker stops within one step."""
        job.fail(error or CanceledError("the client no longer waits"))
        with self._condition, contextlib.suppress(ValueError):
            self._waiting.remove(job)

    def stop_accepting(self) -> None:
        """Refuse new requests; those in the queue are still drawn, and then the thread ends."""
        with self._condition:
            self._is_stopping = True
            self._condition.notify()

    def stop(self, seconds: float) -> None:
        """Refuse new requests, wait up to `seconds` for those in the queue, and then end the others."""
        self.stop_accepting()
        thread = self._thread
        if thread is None:
            return
        thread.join(seconds)
        with self._condition:
            jobs = [*self._waiting, *self._running]
            self._waiting.clear()
        for job in jobs:
            job.fail(UnavailableError("the server stopped before the images were finished", 10))
        thread.join()

    def _estimate_seconds(self) -> int:
        steps = sum(job.steps_left for job in self._waiting)
        return max(1, math.ceil(steps * self._seconds_per_step / self._limits.batch_size))

    def _run(self) -> None:
        while True:
            with self._condition:
                if not self._waiting and not self._is_stopping:
                    self._condition.wait(_IDLE_SECONDS)
                if not self._waiting:
                    self._thread = None
                    return
                batch = self._take_batch()
                self._running = list({id(job): job for job, _ in batch}.values())
            if batch:
                self._draw_batch(batch)

    def _take_batch(self) -> list[tuple[Job, int]]:
        """Take up to a batch of images of equal settings from the queue, in the order of arrival."""
        batch: list[tuple[Job, int]] = []
        for job in list(self._waiting):
            if not job.is_over and (not batch or job.specs[0].settings == batch[0][0].specs[0].settings):
                batch += [(job, index) for index in job.take(self._limits.batch_size - len(batch))]
            if job.is_over or not job.steps_left:
                self._waiting.remove(job)
            if len(batch) == self._limits.batch_size:
                break
        return batch

    def _draw_batch(self, batch: list[tuple[Job, int]]) -> None:
        last = time.monotonic()

        def end_step() -> None:
            nonlocal last
            now = time.monotonic()
            seconds, last = now - last, now
            self.counts.steps += 1
            self.counts.seconds += seconds
            weight = _SMOOTHING if self._seconds_per_step else 1
            self._seconds_per_step += weight * (seconds - self._seconds_per_step)
            if all(job.is_over for job, _ in batch):
                raise _AbandonedError

        try:
            images = self._draw([job.specs[index] for job, index in batch], end_step)
        except _AbandonedError:
            return
        except Exception as error:
            self._handle_failure(batch, error)
            return
        self.counts.images += len(batch)
        for (job, index), image in zip(batch, images, strict=True):
            job.add(index, image)

    def _handle_failure(self, batch: list[tuple[Job, int]], error: Exception) -> None:
        """Draw each image of a failed batch on its own, so that one request cannot fail those of others."""
        if len({id(job) for job, _ in batch}) > 1:
            for item in batch:
                self._draw_batch([item])
            return
        job = batch[0][0]
        if not isinstance(error, Hand1000Error):
            logger.exception("a batch failed", exc_info=error)
        job.fail(error)
        with self._condition, contextlib.suppress(ValueError):
            self._waiting.remove(job)
