"""The queue: batches, bounds, cancellation and the end, with the tiny model and with a drawer that can be held."""

import gc
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from hand1000.config.serving import ServingLimits
from hand1000.core.errors import Hand1000Error
from hand1000.serving.drawing import make_drawer
from hand1000.serving.errors import CanceledError, UnavailableError
from hand1000.serving.image_request import ImageSpec
from hand1000.serving.worker import Worker
from tests.support.serving import GESTURES, PROMPTS, served_model
from tests.support.tiny_pipelines import pipeline_of


def spec(seed: int, steps: int = 3) -> ImageSpec:
    return ImageSpec("a prompt", "four", seed, (("num_inference_steps", steps),))


class HeldDrawer:
    """Draws images of one pixel, the seed, and waits before each step until it is released."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.steps = 0
        self.bad_seeds: set[int] = set()
        self._permits = threading.Semaphore(0)

    def release(self, steps: int = 10_000) -> None:
        """Let it take some more steps."""
        self._permits.release(steps)

    def __call__(self, specs: Sequence[ImageSpec], on_step: Callable[[], None]) -> list[Image.Image]:
        self.batches.append([item.seed for item in specs])
        for _ in range(specs[0].num_inference_steps):
            self._permits.acquire()
            self.steps += 1
            on_step()
        if self.bad_seeds & {item.seed for item in specs}:
            raise Hand1000Error("a bad seed")
        return [Image.new("L", (1, 1), item.seed) for item in specs]

    def wait_for(self, batches: int) -> None:
        """Wait until it has begun a number of batches."""
        deadline = time.monotonic() + 10
        while len(self.batches) < batches:
            assert time.monotonic() < deadline
            time.sleep(0.001)


def seeds_of(images: list[Image.Image]) -> list[int]:
    return [int(np.asarray(image)[0, 0]) for image in images]


def test_compatible_requests_share_batches_in_order() -> None:
    drawer = HeldDrawer()
    worker = Worker(drawer, ServingLimits(batch_size=3))
    first = worker.submit([spec(0)])
    drawer.wait_for(1)
    jobs = [worker.submit([spec(1), spec(2)]), worker.submit([spec(3, steps=5)]), worker.submit([spec(4), spec(5)])]
    drawer.release()
    assert [seeds_of(job.future.result(10)) for job in [first, *jobs]] == [[0], [1, 2], [3], [4, 5]]
    assert drawer.batches == [[0], [1, 2, 4], [3], [5]]
    worker.stop(10)


def test_full_queue_refuses_and_says_when_to_try_again() -> None:
    drawer = HeldDrawer()
    worker = Worker(drawer, ServingLimits(max_queue=2))
    running = worker.submit([spec(0)])
    drawer.wait_for(1)
    waiting = [worker.submit([spec(seed)]) for seed in (1, 2)]
    assert not worker.is_accepting and worker.queue_length == 2
    with pytest.raises(UnavailableError, match="the queue is full with 2 requests") as raised:
        worker.submit([spec(3)])
    assert raised.value.retry_after >= 1
    worker.cancel(waiting[0])
    late = worker.submit([spec(4)])
    drawer.release()
    assert seeds_of(running.future.result(10) + late.future.result(10)) == [0, 4]
    assert [0] in drawer.batches and [1] not in drawer.batches
    worker.stop(10)


def test_canceled_request_stops_within_one_step() -> None:
    drawer = HeldDrawer()
    worker = Worker(drawer, ServingLimits())
    job = worker.submit([spec(0, steps=100), spec(1, steps=100)])
    drawer.wait_for(1)
    drawer.release(3)
    worker.cancel(job)
    drawer.release()
    with pytest.raises(CanceledError):
        job.future.result(10)
    assert seeds_of(worker.submit([spec(7)]).future.result(10)) == [7]
    # Three steps were allowed before; the one in progress may end after.
    assert drawer.steps <= 4 + 3 and drawer.batches == [[0], [7]]
    worker.stop(10)


def test_neighbor_of_a_canceled_request_is_finished() -> None:
    drawer = HeldDrawer()
    worker = Worker(drawer, ServingLimits(batch_size=2))
    worker.submit([spec(0)])
    drawer.wait_for(1)
    canceled, neighbor = worker.submit([spec(1)]), worker.submit([spec(2)])
    drawer.release(3)
    drawer.wait_for(2)
    worker.cancel(canceled)
    drawer.release()
    assert seeds_of(neighbor.future.result(10)) == [2]
    worker.stop(10)


def test_failure_hits_only_the_request_that_causes_it() -> None:
    drawer = HeldDrawer()
    drawer.bad_seeds = {2}
    worker = Worker(drawer, ServingLimits(batch_size=3))
    worker.submit([spec(0)])
    drawer.wait_for(1)
    jobs = [worker.submit([spec(seed)]) for seed in (1, 2, 3)]
    drawer.release()
    assert seeds_of(jobs[0].future.result(10) + jobs[2].future.result(10)) == [1, 3]
    with pytest.raises(Hand1000Error, match="a bad seed"):
        jobs[1].future.result(10)
    assert worker.is_alive
    worker.stop(10)


def test_stop_finishes_what_was_accepted_and_refuses_the_rest() -> None:
    drawer = HeldDrawer()
    worker = Worker(drawer, ServingLimits())
    jobs = [worker.submit([spec(seed)]) for seed in range(3)]
    stopping = threading.Thread(target=worker.stop, args=(10,))
    worker.stop_accepting()
    stopping.start()
    with pytest.raises(UnavailableError, match="stopping"):
        worker.submit([spec(9)])
    drawer.release()
    stopping.join(10)
    assert [seeds_of(job.future.result(0)) for job in jobs] == [[0], [1], [2]] and not worker.is_accepting


def test_stop_ends_what_does_not_finish_in_time() -> None:
    drawer = HeldDrawer()
    worker = Worker(drawer, ServingLimits())
    jobs = [worker.submit([spec(seed, steps=1000)]) for seed in range(2)]
    drawer.wait_for(1)
    stopping = threading.Thread(target=worker.stop, args=(0.1,))
    stopping.start()
    for job in jobs:
        with pytest.raises(UnavailableError, match="stopped before the images were finished"):
            job.future.result(10)
    drawer.release()
    stopping.join(10)
    assert not worker.is_accepting and drawer.steps <= 2


def test_an_unused_model_is_freed_and_a_used_one_starts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hand1000.serving.worker._IDLE_SECONDS", 0.01)
    others = set(threading.enumerate())
    model = served_model()
    for _ in range(3):
        model.submit({"prompt": PROMPTS["ok"], "num_inference_steps": 1}).future.result(60)
        deadline = time.monotonic() + 20
        while any(thread.name == "hand1000-worker" for thread in {*threading.enumerate()} - others):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert model.worker.is_alive
    pipeline = weakref.ref(model.pipeline)
    del model
    gc.collect()
    assert pipeline() is None


def bytes_of(images: Sequence[Image.Image]) -> list[bytes]:
    return [image.tobytes() for image in images]


def test_bytes_depend_on_neither_position_nor_neighbors() -> None:
    model = served_model(batch_size=4)
    specs = [
        model.parser.parse({"prompt": PROMPTS[gesture], "seed": seed})[0] for gesture in GESTURES for seed in range(4)
    ]
    draw = make_drawer(pipeline_of(*GESTURES, strong=True), 4)
    alone = [bytes_of(draw([item], lambda: None))[0] for item in specs]
    assert len(set(alone)) == len(specs)
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [7, 0, 6, 1], [5, 5, 5, 5], [2, 7]):
        assert bytes_of(draw([specs[index] for index in order], lambda: None)) == [alone[index] for index in order]
    model.worker.stop(10)


def test_threads_get_the_bytes_that_each_would_get_alone() -> None:
    model = served_model(batch_size=2)
    bodies = [
        {"prompt": PROMPTS[GESTURES[index % 2]], "seed": index, "num_inference_steps": 2 + index % 3, "num_images": 2}
        for index in range(16)
    ]
    alone = [bytes_of(model.submit(body).future.result(60)) for body in bodies]
    assert all(first != second for first, second in pairwise(alone))
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda body: bytes_of(model.submit(body).future.result(60)), bodies))
    assert together == alone
    assert model.worker.counts.images == 2 * 2 * len(bodies)
    model.worker.stop(10)
