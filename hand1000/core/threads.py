"""How many threads work beside each other."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


def available_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    # macOS has no affinity.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def limit_torch_threads(limit: int) -> Iterator[None]:
    """Let PyTorch compute with at most `limit` threads inside the context, and with at least one.

    Its threads spin while they wait for each other, so that two of them beside two busy threads of others take ten
    times the CPU time of one.
    """
    import torch

    previous = torch.get_num_threads()
    torch.set_num_threads(max(1, min(previous, limit)))
    try:
        yield
    finally:
        torch.set_num_threads(previous)
