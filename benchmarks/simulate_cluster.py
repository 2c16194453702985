"""What a cluster needs for every gesture: a simulation of Flyte, its pods, S3 and GPUs that are taken away.

    .venv/bin/python -m benchmarks.simulate_cluster [--gpus 4,8,16,32] [--seed 0]
    .venv/bin/python -m benchmarks.simulate_cluster --measure        # writes what this machine can measure

The job: a million pictures of HaGRID are screened by MediaPipe; then 34 gestures x 1,000 images are captioned by three
captioners, and each gesture is trained and measured by the preset `default` at Stable Diffusion 1.x size. What an item
costs is in benchmarks/cluster_costs.json, measured or reckoned as it says. Prints a Markdown table.
"""

import argparse
import functools
import heapq
import itertools
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

COSTS = Path(__file__).with_name("cluster_costs.json")
GESTURES, IMAGES, SCREENED = 34, 1000, 1_000_000
SHARD = 5000
"""Pictures that one pod screens."""


@dataclass
class Task:
    """A pod's work.

    Args:
        name: of the stage.
        pool: `cpu` or `gpu`.
        seconds: of work.
        after: that must be done before.
        megabytes, objects: it moves from and to S3.
        checkpoint: seconds of work between two saved states; a preemption loses what came since the last.
    """

    name: str
    pool: str
    seconds: float
    after: list["Task"] = field(default_factory=list)
    megabytes: float = 0.0
    objects: float = 10.0
    checkpoint: float = float("inf")
    waits: int = 0
    then: list["Task"] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.waits = len(self.after)
        for task in self.after:
            task.then.append(self)


def job(costs: dict[str, float], shards: int) -> list[Task]:
    """All tasks of the job, each gesture's Stage II and drawing cut into `shards`."""
    cpu, gpu = "cpu", "gpu"
    screens = [
        Task("screen", cpu, part * costs["screen"], megabytes=part * costs["picture_mb"], objects=part)
        for part in _parts(SCREENED, SHARD)
    ]
    tasks = list(screens)
    choice = Task("choose", cpu, SCREENED * costs["choose"], screens)
    tasks.append(choice)
    for _ in range(GESTURES):
        data = Task("prepare", cpu, IMAGES * costs["prepare"], [choice], IMAGES * costs["picture_mb"], 2 * IMAGES)
        captions = [
            Task(f"caption, {one}", gpu, IMAGES * costs[one], [data]) for one in ("blip2", "paligemma", "vit_gpt2")
        ]
        text = Task("complete", gpu, IMAGES * costs["complete"], captions)
        hands = Task("hands", cpu, IMAGES * costs["screen"], [data])
        encoded = Task("encode", gpu, IMAGES * costs["encode"], [text])
        fusion = Task("fusion", gpu, costs["fusion"], [encoded, hands], costs["model_mb"])
        refined = [
            Task("refine", gpu, IMAGES * costs["refine"] / shards, [fusion], costs["model_mb"], checkpoint=60)
            for _ in range(shards)
        ]
        unet = Task("train", gpu, costs["train"], refined, 2 * costs["model_mb"], checkpoint=costs["checkpoint"])
        drawn = [
            Task("draw", gpu, 200 * costs["draw"] / shards, [before], costs["model_mb"])
            for before in (encoded, unet)
            for _ in range(shards)
        ]
        measured = Task("evaluate", cpu, 600 * costs["measure"], drawn)
        tasks += [data, *captions, text, hands, encoded, fusion, *refined, unet, *drawn, measured]
        tasks.append(Task("register", cpu, costs["register"], [measured], costs["model_mb"]))
    return tasks


def _parts(count: int, size: int) -> Iterator[int]:
    return iter([min(size, count - start) for start in range(0, count, size)])


@dataclass
class Outcome:
    """What a simulated run came to: hours from start to end, of each pool's pods, and preemptions."""

    hours: float
    pod_hours: dict[str, float]
    busy_hours: dict[str, float]
    preempted: int
    waited: dict[str, float]


def simulate(tasks: list[Task], pods: dict[str, int], costs: dict[str, float], seed: int) -> Outcome:
    """Run the tasks: an event is a task that may start, ends, or loses its machine.

    A task waits for Flyte's next look at it, for a pod of its pool, then for its pod's start and its bytes, which its
    own network bounds, or its requests, of which all pods share what S3 takes. A spot machine is taken away after an
    exponential time; the task starts again from its last saved state on another.
    """
    draw = random.Random(seed)
    ticket = itertools.count()
    events: list[tuple[float, int, Callable[[float], None]]] = []
    free = dict(pods)
    queues: dict[str, list[tuple[Task, float]]] = {pool: [] for pool in pods}
    used, busy, waited = dict.fromkeys(pods, 0.0), dict.fromkeys(pods, 0.0), dict.fromkeys(pods, 0.0)
    left = {id(task): task.seconds for task in tasks}
    preempted, last = 0, 0.0

    def at(time: float, action: Callable[[float], None]) -> None:
        heapq.heappush(events, (time, next(ticket), action))

    def ready(task: Task, now: float) -> None:
        at(now + costs["flyte_round"] * draw.uniform(0.5, 1.5), lambda time: queue(task, time))

    def queue(task: Task, now: float) -> None:
        queues[task.pool].append((task, now))
        start(task.pool, now)

    def start(pool: str, now: float) -> None:
        nonlocal preempted
        while free[pool] and queues[pool]:
            task, since = queues[pool].pop(0)
            free[pool] -= 1
            waited[pool] += now - since
            pods_at_s3 = sum(pods.values()) - sum(free.values())
            requests = task.objects * pods_at_s3 / costs["s3_requests_per_second"]
            overhead = costs["pod_start"] + max(task.megabytes / costs["s3_mb_per_second"], requests)
            whole = overhead + left[id(task)]
            lost = draw.expovariate(costs["preemptions_per_hour"] / 3600) if pool == "gpu" else float("inf")
            if lost < whole:
                done = max(0.0, lost - overhead)
                left[id(task)] -= done - done % task.checkpoint if task.checkpoint < float("inf") else 0.0
                preempted += 1
                at(now + lost, functools.partial(gone, task, lost))
            else:
                busy[pool] += left[id(task)]
                at(now + whole, functools.partial(end, task, whole))

    def gone(task: Task, took: float, now: float) -> None:
        used[task.pool] += took
        # Another machine has to come up in its place.
        at(now + costs["node_start"], lambda time: back(task.pool, time))
        ready(task, now)

    def back(pool: str, now: float) -> None:
        free[pool] += 1
        start(pool, now)

    def end(task: Task, took: float, now: float) -> None:
        nonlocal last
        used[task.pool] += took
        last = now
        for following in task.then:
            following.waits -= 1
            if not following.waits:
                ready(following, now)
        back(task.pool, now)

    for task in tasks:
        if not task.after:
            ready(task, costs["node_start"])
    while events:
        time, _, action = heapq.heappop(events)
        action(time)
    return Outcome(
        hours=last / 3600,
        pod_hours={pool: seconds / 3600 for pool, seconds in used.items()},
        busy_hours={pool: seconds / 3600 for pool, seconds in busy.items()},
        preempted=preempted,
        waited={pool: seconds / 3600 for pool, seconds in waited.items()},
    )


def measure() -> dict[str, float]:
    """Seconds an item on one core of this machine, of what needs no GPU."""
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
            large = Path(folder) / f"large{number}.jpg"  # As HaGRID's smaller copy: the shorter side 512 pixels.
            with Image.open(path) as opened:
                opened.convert("RGB").resize((512, 683)).save(large, quality=90)
            paths.append(large)
        extractor = SmallExtractor.from_pretrained()
        with HandDetector(0.5) as detector:
            return {
                "screen": per_item(lambda path: detector.detect(load_square(path, 512)[0]), paths),
                "prepare": per_item(lambda path: load_square(path, 512), paths),
                "measure": per_item(lambda path: extractor(load_square(path, 512)[0][None]), paths),
            }


def main() -> None:
    """Print the table, or measure anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--gpus", default="4,8,16,32")
    parser.add_argument("--cpus", type=int, default=32, help="pods of two cores")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    table = json.loads(COSTS.read_text())
    if options.measure:
        found = {name: round(seconds, 5) for name, seconds in measure().items()}
        for name, seconds in found.items():
            table[name]["value"] = seconds
        COSTS.write_text(json.dumps(table, indent=2) + "\n")
        print(json.dumps(found, indent=2))
        return
    costs = {name: entry["value"] for name, entry in table.items()}
    print("| GPUs | hours | GPU busy | hours waited for a GPU, a task | preempted | GPU cost, USD | CPU cost, USD |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for gpus in map(int, options.gpus.split(",")):
        tasks = job(costs, shards=4)
        of_gpu = sum(task.pool == "gpu" for task in tasks)
        run = simulate(tasks, {"cpu": options.cpus, "gpu": gpus}, costs, options.seed)
        print(
            f"| {gpus} | {run.hours:.1f} | {run.busy_hours['gpu'] / (gpus * run.hours):.0%} "
            f"| {run.waited['gpu'] / of_gpu:.1f} | {run.preempted} "
            f"| {run.pod_hours['gpu'] * costs['gpu_price']:.0f} | {run.pod_hours['cpu'] * costs['cpu_price']:.0f} |"
        )


if __name__ == "__main__":
    main()
