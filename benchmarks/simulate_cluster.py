"""Simulation of a cluster that trains every gesture: Flyte's scheduling, pods, S3 and preempted GPUs.

    .venv/bin/python -m benchmarks.simulate_cluster [--gpus 4,8,16,32] [--seed 0]
    .venv/bin/python -m benchmarks.simulate_cluster --measure        # updates the costs that need no GPU

The job: MediaPipe screens a million images of HaGRID; then three captioners caption 34 gestures x 1,000 images, and
each gesture is trained and evaluated with the preset `default` at Stable Diffusion 1.x size. cluster_costs.json holds
the cost of each item and its source. Prints a Markdown table.
"""

import argparse
import functools
import heapq
import itertools
import json
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

COSTS = Path(__file__).with_name("cluster_costs.json")
GESTURES, IMAGES, SCREENED = 34, 1000, 1_000_000
SHARD = 5000
"""Images that one pod screens."""


@dataclass
class Task:
    """The work of one pod.

    Attributes:
        name: Name of the stage.
        pool: Pool of pods that runs it, `cpu` or `gpu`.
        seconds: Duration of the work itself.
        after: Tasks that must finish first.
        megabytes: Bytes that it moves from and to S3, in MB.
        objects: Number of S3 objects that it moves.
        checkpoint: Seconds of work between two checkpoints; a preemption loses the work since the last one.
        unfinished: Number of tasks in `after` that have not finished.
        successors: Tasks that wait for this one.
    """

    name: str
    pool: str
    seconds: float
    after: list["Task"] = field(default_factory=list)
    megabytes: float = 0.0
    objects: float = 10.0
    checkpoint: float = float("inf")
    unfinished: int = 0
    successors: list["Task"] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.unfinished = len(self.after)
        for task in self.after:
            task.successors.append(self)


def job(costs: dict[str, float], shards: int) -> list[Task]:
    """All tasks of the job; Stage II and the generation of each gesture are split into `shards`."""
    cpu, gpu = "cpu", "gpu"
    screens = [
        Task("screen", cpu, size * costs["screen"], megabytes=size * costs["image_mb"], objects=size)
        for size in _shard_sizes(SCREENED, SHARD)
    ]
    tasks = list(screens)
    selection = Task("select", cpu, SCREENED * costs["select"], screens)
    tasks.append(selection)
    for _ in range(GESTURES):
        data = Task("prepare", cpu, IMAGES * costs["prepare"], [selection], IMAGES * costs["image_mb"], 2 * IMAGES)
        captions = [
            Task(f"caption, {captioner}", gpu, IMAGES * costs[captioner], [data])
            for captioner in ("blip2", "paligemma", "vit_gpt2")
        ]
        text = Task("complete", gpu, IMAGES * costs["complete"], captions)
        hands = Task("hands", cpu, IMAGES * costs["screen"], [data])
        encoded = Task("encode", gpu, IMAGES * costs["encode"], [text])
        fusion = Task("fusion", gpu, costs["fusion"], [encoded, hands], costs["model_mb"])
        embeddings = [
            Task("embeddings", gpu, IMAGES * costs["embeddings"] / shards, [fusion], costs["model_mb"], checkpoint=60)
            for _ in range(shards)
        ]
        unet = Task("train", gpu, costs["train"], embeddings, 2 * costs["model_mb"], checkpoint=costs["checkpoint"])
        generated = [
            Task("generate", gpu, 200 * costs["generate"] / shards, [predecessor], costs["model_mb"])
            for predecessor in (encoded, unet)
            for _ in range(shards)
        ]
        metrics = Task("evaluate", cpu, 600 * costs["features"], generated)
        tasks += [data, *captions, text, hands, encoded, fusion, *embeddings, unet, *generated, metrics]
        tasks.append(Task("register", cpu, costs["register"], [metrics], costs["model_mb"]))
    return tasks


def _shard_sizes(count: int, size: int) -> Iterator[int]:
    return iter([min(size, count - start) for start in range(0, count, size)])


@dataclass
class Outcome:
    """Result of a simulated run.

    Attributes:
        hours: Hours from the first start to the last end.
        pod_hours: Hours of all pods by pool.
        busy_hours: Hours of useful work by pool.
        queue_hours: Hours that tasks waited for a pod, by pool.
        preemptions: Number of preempted pods.
    """

    hours: float
    pod_hours: dict[str, float]
    busy_hours: dict[str, float]
    queue_hours: dict[str, float]
    preemptions: int


def simulate(tasks: list[Task], pods: dict[str, int], costs: dict[str, float], seed: int) -> Outcome:
    """Run the tasks as a discrete-event simulation.

    A task waits for Flyte's next scheduling round, for a pod of its pool, for the start of the pod, and for its bytes,
    bounded by its own network, or its requests, of which all pods share the rate of S3. A spot machine is preempted
    after an exponential time; the task resumes from its last checkpoint on another one.

    Args:
        tasks: Tasks of the job; the simulation changes them.
        pods: Number of pods by pool.
        costs: Cost of each item, as in benchmarks/cluster_costs.json.
        seed: Random seed of delays and preemptions.
    """
    return _Simulation(tasks, pods, costs, seed).run()


class _Simulation:
    """State of a simulated run: free pods, queues and pending events. Times are in seconds."""

    def __init__(self, tasks: list[Task], pods: dict[str, int], costs: dict[str, float], seed: int) -> None:
        self._tasks, self._pods, self._costs = tasks, pods, costs
        self._rng = random.Random(seed)
        self._event_ids = itertools.count()
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._free = dict(pods)
        self._queues: dict[str, list[tuple[Task, float]]] = {pool: [] for pool in pods}
        self._used, self._busy, self._queued = (dict.fromkeys(pods, 0.0) for _ in range(3))
        self._remaining = {id(task): task.seconds for task in tasks}
        self._preemptions, self._end = 0, 0.0

    def run(self) -> Outcome:
        """Process the events until no task is left."""
        for task in self._tasks:
            if not task.after:
                self._submit(task, self._costs["node_start"])
        while self._events:
            now, _, action = heapq.heappop(self._events)
            action(now)

        def hours(seconds: dict[str, float]) -> dict[str, float]:
            return {pool: value / 3600 for pool, value in seconds.items()}

        return Outcome(self._end / 3600, hours(self._used), hours(self._busy), hours(self._queued), self._preemptions)

    def _schedule(self, time: float, action: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (time, next(self._event_ids), action))

    def _submit(self, task: Task, now: float) -> None:
        delay = self._costs["flyte_round"] * self._rng.uniform(0.5, 1.5)
        self._schedule(now + delay, functools.partial(self._enqueue, task))

    def _enqueue(self, task: Task, now: float) -> None:
        self._queues[task.pool].append((task, now))
        self._start_pods(task.pool, now)

    def _start_pods(self, pool: str, now: float) -> None:
        while self._free[pool] and self._queues[pool]:
            task, queued_at = self._queues[pool].pop(0)
            self._free[pool] -= 1
            self._queued[pool] += now - queued_at
            overhead = self._overhead(task)
            duration = overhead + self._remaining[id(task)]
            lifetime = self._rng.expovariate(self._costs["preemptions_per_hour"] / 3600) if pool == "gpu" else math.inf
            if lifetime < duration:
                done = max(0.0, lifetime - overhead)
                self._remaining[id(task)] -= done - done % task.checkpoint if task.checkpoint < math.inf else 0.0
                self._preemptions += 1
                self._schedule(now + lifetime, functools.partial(self._preempt, task, lifetime))
            else:
                self._busy[pool] += self._remaining[id(task)]
                self._schedule(now + duration, functools.partial(self._finish, task, duration))

    def _overhead(self, task: Task) -> float:
        """Seconds until a started pod works: its start, and its transfers from S3."""
        running_pods = sum(self._pods.values()) - sum(self._free.values())
        requests = task.objects * running_pods / self._costs["s3_requests_per_second"]
        return self._costs["pod_start"] + max(task.megabytes / self._costs["s3_mb_per_second"], requests)

    def _preempt(self, task: Task, duration: float, now: float) -> None:
        self._used[task.pool] += duration
        # Another machine has to start in its place.
        self._schedule(now + self._costs["node_start"], functools.partial(self._free_pod, task.pool))
        self._submit(task, now)

    def _free_pod(self, pool: str, now: float) -> None:
        self._free[pool] += 1
        self._start_pods(pool, now)

    def _finish(self, task: Task, duration: float, now: float) -> None:
        self._used[task.pool] += duration
        self._end = now
        for successor in task.successors:
            successor.unfinished -= 1
            if not successor.unfinished:
                self._submit(successor, now)
        self._free_pod(task.pool, now)


def measure() -> dict[str, float]:
    """Measure the costs that need no GPU, in seconds per item on one core of this machine."""
    import tempfile
    import time

    from PIL import Image

    from hand1000.data.crop import load_square
    from hand1000.data.render.dataset import render_dataset
    from hand1000.evaluation.extractors import SmallExtractor
    from hand1000.hands.detector import HandDetector

    def per_item(action: Callable[[Path], object], paths: list[Path]) -> float:
        action(paths[0])
        started = time.perf_counter()
        for path in paths:
            action(path)
        return (time.perf_counter() - started) / len(paths)

    with tempfile.TemporaryDirectory() as folder:
        render_dataset(Path(folder), {"four": {"train": 30, "test": 2}}, seed=0, size=256)
        paths = []
        for number, path in enumerate(sorted((Path(folder) / "four").glob("*"))):
            large = (
                Path(folder) / f"large{number}.jpg"
            )  # The size of HaGRID's smaller copy: its shorter side has 512 pixels.
            with Image.open(path) as opened:
                opened.convert("RGB").resize((512, 683)).save(large, quality=90)
            paths.append(large)
        extractor = SmallExtractor.from_pretrained()
        with HandDetector(0.5) as detector:
            return {
                "screen": per_item(lambda path: detector.detect(load_square(path, 512)[0]), paths),
                "prepare": per_item(lambda path: load_square(path, 512), paths),
                "features": per_item(lambda path: extractor(load_square(path, 512)[0][None]), paths),
            }


def main() -> None:
    """Print the table, or update the measured costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--gpus", default="4,8,16,32")
    parser.add_argument("--cpus", type=int, default=32, help="number of CPU pods, with two cores each")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    table = json.loads(COSTS.read_text())
    if options.measure:
        measured = {name: round(seconds, 5) for name, seconds in measure().items()}
        for name, seconds in measured.items():
            table[name]["value"] = seconds
        COSTS.write_text(json.dumps(table, indent=2) + "\n")
        print(json.dumps(measured, indent=2))
        return
    costs = {name: entry["value"] for name, entry in table.items()}
    print("| GPUs | hours | GPU busy | hours of GPU queue per task | preemptions | GPU cost, USD | CPU cost, USD |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for gpus in map(int, options.gpus.split(",")):
        tasks = job(costs, shards=4)
        gpu_tasks = sum(task.pool == "gpu" for task in tasks)
        run = simulate(tasks, {"cpu": options.cpus, "gpu": gpus}, costs, options.seed)
        print(
            f"| {gpus} | {run.hours:.1f} | {run.busy_hours['gpu'] / (gpus * run.hours):.0%} "
            f"| {run.queue_hours['gpu'] / gpu_tasks:.1f} | {run.preemptions} "
            f"| {run.pod_hours['gpu'] * costs['gpu_price']:.0f} | {run.pod_hours['cpu'] * costs['cpu_price']:.0f} |"
        )


if __name__ == "__main__":
    main()
