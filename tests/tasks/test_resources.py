"""The resources that each task requests: the table, and the Flyte specs made from it."""

import itertools
import os
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import yaml
from flytekit.configuration import Image, ImageConfig, SerializationSettings
from flytekit.core.array_node_map_task import ArrayNodeMapTask
from flytekit.core.base_task import PythonTask
from flytekit.core.context_manager import FlyteEntities
from flytekit.tools.translator import get_serializable

from hand1000.core.errors import Hand1000Error
from tasks import resources
from tasks.decorators import task_version
from tasks.resources import TABLE, Pod, Table, resources_table
from tests.support.short_demo import ROOT

IMAGES = {name: Image(name=name, fqn=f"registry.example/hand1000-{name}", tag="v1") for name in ("cpu", "gpu")}
SETTINGS = SerializationSettings(
    image_config=ImageConfig(default_image=IMAGES["cpu"], images=list(IMAGES.values())),
    project="hand1000",
    domain="development",
    version="v1",
)
WORKFLOWS = (
    "train_gesture",
    "retrain",
    "build_dataset",
    "pretrain_base",
    "train_controlnet",
    "compare_methods",
    "sweep",
)


def all_tasks() -> dict[str, PythonTask]:
    """All tasks of all workflows by name."""
    for name in WORKFLOWS:
        __import__(f"workflows.{name}")
    tasks = {}
    for entity in FlyteEntities.entities:
        task = entity.python_function_task if isinstance(entity, ArrayNodeMapTask) else entity
        if isinstance(task, PythonTask) and task.name.startswith(("tasks.", "workflows.")):
            tasks[task.name.rpartition(".")[2]] = task
    return tasks


def test_the_table_names_every_task_and_no_other() -> None:
    assert sorted(all_tasks()) == sorted(itertools.chain(*resources_table().tasks.values()))


def test_every_spec_is_what_the_table_says() -> None:
    for name, task in all_tasks().items():
        pod: Pod = resources_table().pod_of(name)
        template = get_serializable(OrderedDict(), SETTINGS, task).template
        assert template.container.image == f"registry.example/hand1000-{pod.image}:v1", name
        resources = template.container.resources
        for entries, end in ((resources.requests, 0), (resources.limits, 1)):
            amounts = {entry.name: entry.value for entry in entries}
            gpu = {resources.ResourceName.GPU: str(pod.gpu)} if pod.gpu else {}
            assert amounts == gpu | {
                resources.ResourceName.CPU: str(pod.cpu[end]),
                resources.ResourceName.MEMORY: f"{pod.memory_gib[end]}Gi",
                resources.ResourceName.EPHEMERAL_STORAGE: f"{pod.disk_gib}Gi",
            }, name
        metadata = template.metadata
        assert metadata.interruptible == pod.interruptible and metadata.retries.retries == pod.retries, name
        assert metadata.timeout.total_seconds() == 60 * pod.timeout_minutes, name
        # Flyte would return the images of yesterday for the same address.
        assert not (metadata.discoverable and name == "prepare_data")
        if metadata.discoverable:
            assert metadata.discovery_version == task_version(name), name
        extended = template.extended_resources
        assert (extended.gpu_accelerator.device if pod.accelerator else "") == {"": "", "A10G": "nvidia-a10g"}[
            pod.accelerator
        ]
        assert (extended.shared_memory.size_limit if pod.shared_memory_gib else "") == (
            f"{pod.shared_memory_gib}Gi" if pod.shared_memory_gib else ""
        )


def spec_of_stage3(variables: dict[str, str]) -> list[str]:
    """The spec of `train_unet` with these variables set at registration."""
    code = (
        "from tasks.stage3 import train_unet as t; c = t.task_config; r = t.resources.limits;"
        "x = t.get_extended_resources(None);"
        "print(t.task_type, getattr(c, 'nnodes', 0), getattr(c, 'nproc_per_node', 0), r.gpu, r.mem,"
        "x.gpu_accelerator.device, x.shared_memory.size_limit, t.metadata.interruptible, t.environment)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | variables, cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split(maxsplit=8)


@pytest.mark.parametrize(("nodes", "kind"), [(1, "python-task"), (2, "pytorch")])
def test_several_processes_of_stage3_have_a_valid_spec(nodes: int, kind: str) -> None:
    """A plain task on one machine, Kubeflow's PyTorchJob on several."""
    variables = {"HAND1000_PROCESSES": "4", "HAND1000_NODES": str(nodes)}
    spec = [kind, str(nodes), "4", "4", "128Gi", "nvidia-a10g", "16Gi", "True", f"{variables}\n"]
    assert spec_of_stage3(variables) == spec


def test_stage3_runs_on_the_named_gpu() -> None:
    *spec, environment = spec_of_stage3({"HAND1000_GPU": "H100"})
    assert spec == ["python-task", "0", "0", "1", "96Gi", "nvidia-h100", "8Gi", "False"] and environment == "{}\n"


def broken(**changes: object) -> str:
    """The error of the table when the pod `small` has these changes."""
    values = yaml.safe_load(TABLE.read_text())
    values["pods"]["small"] |= changes
    with pytest.raises(ValueError) as error:
        Table.model_validate(values)
    return str(error.value)


def test_an_invalid_field_of_the_table_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "pods.small.cpus" in broken(cpus=3)
    assert "cpu: 4 is requested but 2 is the limit" in broken(cpu=[4, 2])
    assert "accelerator: A10G needs a GPU" in broken(accelerator="A10G")
    assert "small: asks for more than the quota" in broken(cpu=[1, 97])
    monkeypatch.setenv("HAND1000_GPU", "B9000")
    with pytest.raises(Hand1000Error, match="HAND1000_GPU: 'B9000' has no row .* choose A10G, A100, H100"):
        resources_table().pod_of("train_unet")
    with pytest.raises(Hand1000Error, match="tasks: no_such_task is missing"):
        resources_table().pod_of("no_such_task")
    path = tmp_path / "resources.yaml"
    path.write_text(TABLE.read_text().replace("timeout_minutes: 30", "timeout_minutes: 0"))
    monkeypatch.setattr(resources, "TABLE", path)
    with pytest.raises(Hand1000Error, match="pods.small.timeout_minutes: .* greater than or equal to 1"):
        resources_table.__wrapped__()
