"""The table `resources.yaml`: the resources that each task requests from a cluster."""

import datetime
import functools
import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from flytekit import Resources
from pydantic import Field, model_validator

from hand1000.config.base import FrozenSettings, validate_settings
from hand1000.core.documents import read_yaml
from hand1000.core.errors import Hand1000Error

TABLE = Path(__file__).with_name("resources.yaml")
GPU_VARIABLE = "HAND1000_GPU"
STAGE3 = "stage3"
IMAGES = {name: f"{{{{.image.{name}.fqn}}}}:{{{{.image.{name}.version}}}}" for name in ("cpu", "gpu")}

Range = Annotated[list[Annotated[int, Field(ge=1, le=2048)]], Field(min_length=2, max_length=2)]
"""The request and the limit."""


class Pod(FrozenSettings):
    """The container of a task."""

    cpu: Range
    memory_gib: Range
    disk_gib: int = Field(ge=1, le=2000)
    gpu: int = Field(0, ge=0, le=16)
    accelerator: Literal["", "T4", "A10G", "L4", "L40S", "A100", "A100_80GB", "H100"] = Field(
        "", description="flytekit's name of the GPU; '' takes any."
    )
    shared_memory_gib: int = Field(0, ge=0, le=512, description="0 leaves the container its 64 MB.")
    interruptible: bool = Field(description="Whether it may run where it can be preempted.")
    timeout_minutes: int = Field(ge=1, le=10_080)
    retries: int = Field(ge=0, le=10)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for name in ("cpu", "memory_gib"):
            request, limit = getattr(self, name)
            if request > limit:
                raise ValueError(f"{name}: {request} is requested but {limit} is the limit")
        if self.accelerator and not self.gpu:
            raise ValueError(f"accelerator: {self.accelerator} needs a GPU; set gpu to 1")
        return self

    @property
    def image(self) -> Literal["cpu", "gpu"]:
        """The container image: the one with CUDA where there is a GPU."""
        return "gpu" if self.gpu else "cpu"

    def options(self, processes: int = 1) -> dict[str, Any]:
        """The options of flytekit's `task`, for several processes as many times the pod."""
        from flytekit.extras import accelerators

        def resources(end: int, **more: str) -> Resources:
            if self.gpu:
                more["gpu"] = str(self.gpu * processes)
            return Resources(cpu=str(self.cpu[end] * processes), mem=f"{self.memory_gib[end] * processes}Gi", **more)

        return {
            "container_image": IMAGES[self.image],
            "requests": resources(0, ephemeral_storage=f"{self.disk_gib}Gi"),
            "limits": resources(1, ephemeral_storage=f"{self.disk_gib}Gi"),
            "accelerator": getattr(accelerators, self.accelerator) if self.accelerator else None,
            "shared_memory": f"{self.shared_memory_gib * processes}Gi" if self.shared_memory_gib else None,
            "interruptible": self.interruptible,
            "timeout": datetime.timedelta(minutes=self.timeout_minutes),
            "retries": self.retries,
        }


class Quota(FrozenSettings):
    """The resources that a project-domain may use at once."""

    cpu: int = Field(ge=1)
    memory_gib: int = Field(ge=1)
    gpu: int = Field(ge=0)

    def holds(self, pod: Pod) -> int:
        """The number of such pods that fit at their limits."""
        fit = [self.cpu // pod.cpu[1], self.memory_gib // pod.memory_gib[1]]
        return min([*fit, self.gpu // pod.gpu] if pod.gpu else fit)


class Table(FrozenSettings):
    """The whole table."""

    quota: Quota
    pods: dict[str, Pod]
    stage3: dict[str, Pod]
    tasks: dict[str, list[str]]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for pod in self.tasks.keys() - {*self.pods, STAGE3}:
            raise ValueError(f"tasks.{pod}: no such pod; there are {', '.join([*self.pods, STAGE3])}")
        for name, pod_of_name in {**self.pods, **self.stage3}.items():
            if not self.quota.holds(pod_of_name):
                raise ValueError(f"{name}: asks for more than the quota")
        return self

    def pod_of(self, task: str) -> Pod:
        """The pod of a task.

        Raises:
            Hand1000Error: The table does not name the task, or `$HAND1000_GPU` is none of Stage III's.
        """
        name = next((pod for pod, tasks in self.tasks.items() if task in tasks), None)
        if name is None:
            raise Hand1000Error(f"{TABLE}: tasks: {task} is missing; add it to its pod")
        if name != STAGE3:
            return self.pods[name]
        gpu = os.environ.get(GPU_VARIABLE) or next(iter(self.stage3))
        if gpu not in self.stage3:
            raise Hand1000Error(f"{GPU_VARIABLE}: {gpu!r} has no row in {TABLE}; choose {', '.join(self.stage3)}")
        return self.stage3[gpu]


@functools.cache
def resources_table() -> Table:
    """Read the table.

    Raises:
        Hand1000Error: A field is missing, unknown or out of range.
    """
    return validate_settings(Table, read_yaml(TABLE), TABLE)
