"""The table `resources.yaml`: what each task asks a cluster for."""

import datetime
import functools
import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from flytekit import Resources
from pydantic import Field, ValidationError, model_validator

from hand1000.config.base import FrozenSettings, format_validation_error
from hand1000.core.errors import Hand1000Error

TABLE = Path(__file__).with_name("resources.yaml")
GPU_VARIABLE = "HAND1000_GPU"
STAGE3 = "stage3"
CPU_IMAGE = "{{.image.cpu.fqn}}:{{.image.cpu.version}}"
GPU_IMAGE = "{{.image.gpu.fqn}}:{{.image.gpu.version}}"

Range = Annotated[list[Annotated[int, Field(ge=1, le=2048)]], Field(min_length=2, max_length=2)]
"""What is requested, and the limit."""


class Pod(FrozenSettings):
    """What a task's container gets."""

    image: Literal["cpu", "gpu"]
    cpu: Range
    memory_gib: Range
    disk_gib: int = Field(ge=1, le=2000)
    gpu: int = Field(ge=0, le=16)
    accelerator: Literal["", "T4", "A10G", "L4", "L40S", "A100", "A100_80GB", "H100"] = Field(
        description="By flytekit's name; '' takes any GPU."
    )
    shared_memory_gib: int = Field(ge=0, le=512, description="0 leaves the container its 64 MB.")
    interruptible: bool = Field(description="Whether it may run where it can be preempted.")
    timeout_minutes: int = Field(ge=1, le=10_080)
    retries: int = Field(ge=0, le=10)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for name in ("cpu", "memory_gib"):
            request, limit = getattr(self, name)
            if request > limit:
                raise ValueError(f"{name}: {request} is requested but {limit} is the limit")
        if (self.image == "gpu") != bool(self.gpu) or (self.accelerator and not self.gpu):
            raise ValueError(f"image {self.image} and accelerator {self.accelerator!r} with {self.gpu} GPUs")
        return self

    def options(self, processes: int = 1) -> dict[str, Any]:
        """Of flytekit's `task`; for several processes, a GPU each, as much for each of them."""
        from flytekit.extras import accelerators

        def resources(end: int, **more: str) -> Resources:
            if self.gpu:
                more["gpu"] = str(self.gpu * processes)
            return Resources(cpu=str(self.cpu[end] * processes), mem=f"{self.memory_gib[end] * processes}Gi", **more)

        return {
            "container_image": CPU_IMAGE if self.image == "cpu" else GPU_IMAGE,
            "requests": resources(0, ephemeral_storage=f"{self.disk_gib}Gi"),
            "limits": resources(1, ephemeral_storage=f"{self.disk_gib}Gi"),
            "accelerator": getattr(accelerators, self.accelerator) if self.accelerator else None,
            "shared_memory": f"{self.shared_memory_gib * processes}Gi" if self.shared_memory_gib else None,
            "interruptible": self.interruptible,
            "timeout": datetime.timedelta(minutes=self.timeout_minutes),
            "retries": self.retries,
        }


class Quota(FrozenSettings):
    """What a project-domain may use at once."""

    cpu: int = Field(ge=1)
    memory_gib: int = Field(ge=1)
    gpu: int = Field(ge=0)

    def holds(self, pod: Pod) -> int:
        """How many of these pods fit at their limits."""
        fit = [self.cpu // pod.cpu[1], self.memory_gib // pod.memory_gib[1]]
        return min([*fit, self.gpu // pod.gpu] if pod.gpu else fit)


class Table(FrozenSettings):
    """All of it."""

    quota: Quota
    pods: dict[str, Pod]
    stage3: dict[str, Pod]
    tasks: dict[str, str]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for task, pod in self.tasks.items():
            if pod != STAGE3 and pod not in self.pods:
                raise ValueError(f"tasks.{task}: no pod {pod!r}; there are {', '.join([*self.pods, STAGE3])}")
        for name, one in {**self.pods, **self.stage3}.items():
            if not self.quota.holds(one):
                raise ValueError(f"{name}: asks for more than the quota")
        return self

    def pod_of(self, task: str) -> Pod:
        """What a task gets.

        Raises:
            Hand1000Error: the table does not name it, or `$HAND1000_GPU` is none of Stage III's.
        """
        name = self.tasks.get(task)
        if name is None:
            raise Hand1000Error(f"{TABLE}: tasks.{task} is missing; name its pod")
        if name != STAGE3:
            return self.pods[name]
        gpu = os.environ.get(GPU_VARIABLE) or next(iter(self.stage3))
        if gpu not in self.stage3:
            raise Hand1000Error(f"{GPU_VARIABLE}: {gpu!r} has no row in {TABLE}; choose {', '.join(self.stage3)}")
        return self.stage3[gpu]


@functools.cache
def resources_table() -> Table:
    """The table.

    Raises:
        Hand1000Error: a field is missing, unknown or out of range.
    """
    try:
        return Table.model_validate(yaml.safe_load(TABLE.read_text()))
    except ValidationError as error:
        raise Hand1000Error(format_validation_error(error, str(TABLE))) from error
