"""Several processes, a GPU each, that train one model together."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from hand1000.core.devices import best_device


@dataclass(frozen=True)
class DistributedContext:
    """Who takes part.

    Attributes:
        rank: of this process, 0..size-1; 0 leads: it saves, reports and draws.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that saves, reports and draws."""
        return self.rank == 0

    def share(self, count: int) -> list[int]:
        """Which of `count` items this process computes."""
        return list(range(self.rank, count, self.size))

    def together(self, module: torch.nn.Module) -> Any:
        """`module` as what is called in training: gradients become the mean over the processes."""
        return DistributedDataParallel(module) if self.size > 1 else module

    def exchanging(self, model: Any, *, last: bool) -> AbstractContextManager:
        """Around the forward and backward pass of a part of a step: gradients are exchanged after the last."""
        return nullcontext() if last or self.size == 1 else model.no_sync()

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        """The sum of all processes' values, in place."""
        if self.size > 1:
            distributed.all_reduce(value)
        return value


SINGLE_PROCESS = DistributedContext()


@contextmanager
def init_distributed() -> Iterator[DistributedContext]:
    """The processes that torch's elastic launcher started this one among; alone where it did not.

    They exchange gradients through nccl between GPUs, else through gloo.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield SINGLE_PROCESS
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield DistributedContext(distributed.get_rank(), size)
    finally:
        distributed.destroy_process_group()


def local_device() -> torch.device:
    """The accelerator of this process among those of its machine, else the CPU."""
    device = best_device()
    return torch.device(device.type, int(os.environ.get("LOCAL_RANK", "0"))) if device.type == "cuda" else device
