"""The simulation of a cluster agrees with results calculated by hand."""

import json

import pytest

from benchmarks.simulate_cluster import COSTS, GESTURES, Outcome, Task, job, simulate

FREE_COSTS = {
    "flyte_round": 0.0,
    "pod_start": 0.0,
    "node_start": 0.0,
    "s3_mb_per_second": 1.0,
    "s3_requests_per_second": 1.0,
    "preemptions_per_hour": 1e-9,
}


def run(tasks: list[Task], gpus: int, **costs: float) -> Outcome:
    return simulate(tasks, {"cpu": 1, "gpu": gpus}, FREE_COSTS | costs, seed=1)


def chain(count: int, **options: float) -> list[Task]:
    return [Task("work", "gpu", 3600, **({"objects": 0.0} | options)) for _ in range(count)]


def test_pods_share_the_work() -> None:
    assert run(chain(4), gpus=1).hours == pytest.approx(4)
    assert run(chain(4), gpus=4).hours == pytest.approx(1)
    first = Task("first", "gpu", 3600, objects=0)
    assert run([first, Task("second", "cpu", 3600, [first], objects=0)], gpus=4).hours == pytest.approx(2)
    assert run(chain(2), gpus=1).queue_hours["gpu"] == pytest.approx(1)


def test_pod_starts_and_transfers_take_time() -> None:
    assert run(chain(1), gpus=1, pod_start=1800).hours == pytest.approx(1.5)
    assert run(chain(1, megabytes=3600), gpus=1).hours == pytest.approx(2)
    assert run(chain(1, objects=3600), gpus=1).hours == pytest.approx(2)
    # Two pods share the request rate of S3, so the requests of the second take twice as long.
    assert run(chain(2, objects=3600), gpus=2).hours == pytest.approx(3)


def test_a_preempted_task_resumes_from_its_last_checkpoint() -> None:
    frequent = {"preemptions_per_hour": 1.0}
    saved, unsaved = run(chain(20, checkpoint=60), 20, **frequent), run(chain(20), 20, **frequent)
    assert saved.preemptions > 0 and unsaved.preemptions > 0
    assert saved.pod_hours["gpu"] < 1.05 * 20 < unsaved.pod_hours["gpu"]


def test_the_job_trains_every_gesture_and_is_reproducible() -> None:
    costs = {name: entry["value"] for name, entry in json.loads(COSTS.read_text()).items()}
    tasks = job(costs, shards=4)
    assert sum(task.name == "train" for task in tasks) == GESTURES
    work = sum(task.seconds for task in tasks if task.pool == "gpu") / 3600
    outcomes = [simulate(job(costs, shards=4), {"cpu": 8, "gpu": 8}, costs, seed=0) for _ in range(2)]
    assert outcomes[0] == outcomes[1] and outcomes[0].hours > work / 8
    assert all(entry["from"] for entry in json.loads(COSTS.read_text()).values())
