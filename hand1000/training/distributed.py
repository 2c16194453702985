"""Data-parallel training by several processes with one GPU each."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from hand1000.core.devices import best_device
from hand1000.core.interruption import Interrupted, is_interrupted, raise_if_interrupted


@dataclass(frozen=True)
class DistributedContext:
    """The rank of this process, 0..size-1, among those that train one model."""

    rank: int = 0
    size: int = 1

    @property
    def is_main_process(self) -> bool:
        """Whether this process saves, reports and generates images."""
        return self.rank == 0

    def shard(self, count: int) -> list[int]:
        """The items of `count` that this process computes."""
        return list(range(self.rank, count, self.size))

    def wrap_ddp(self, module: torch.nn.Module) -> Any:
        """`module` as it is called in training: gradients are averaged over the processes."""
        return DistributedDataParallel(module) if self.size > 1 else module

    def no_sync_unless_last(self, model: Any, *, is_last: bool) -> AbstractContextManager:
        """Context of a micro-batch's forward and backward pass: gradients are exchanged after the last one."""
        return nullcontext() if is_last or self.size == 1 else model.no_sync()

    def all_reduce_sum(self, value: torch.Tensor) -> torch.Tensor:
        """Sum `value` over all processes, in place."""
        if self.size > 1:
            distributed.all_reduce(value)
        return value

    def raise_if_interrupted(self, save: Callable[[], None]) -> None:
        """Stop all processes after the same step if one of them has got a signal; the main one calls `save` first."""
        if self.size == 1:
            raise_if_interrupted(save)
            return
        interrupted = torch.tensor(float(is_interrupted()), device=local_device())
        if self.all_reduce_sum(interrupted).item():
            if self.is_main_process:
                save()
            # The launcher ends all processes as soon as one has failed.
            distributed.barrier()
            raise_if_interrupted()
            raise Interrupted(signal.SIGTERM)


SINGLE_PROCESS = DistributedContext()


@contextmanager
def init_distributed() -> Iterator[DistributedContext]:
    """Join the processes that torch's elastic launcher started; without a launcher there is a single process.

    Gradients are exchanged through nccl between GPUs, otherwise through gloo.
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
    """The accelerator of this process on its machine, otherwise the CPU."""
    device = best_device()
    return torch.device(device.type, int(os.environ.get("LOCAL_RANK", "0"))) if device.type == "cuda" else device
