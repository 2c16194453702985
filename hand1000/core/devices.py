"""The device of the models, and their peak memory."""

import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def best_device() -> "torch.device":
    """Return the accelerator if there is one, else the CPU."""
    import torch

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator or torch.device("cpu")


def reset_peak_memory() -> None:
    """Start a new measurement of `peak_memory`; on a Mac it always covers the whole process."""
    if (cuda := _cuda()) is not None:
        cuda.reset_peak_memory_stats()
    elif _CLEAR.exists():
        _CLEAR.write_text("5")


def peak_memory() -> int:
    """Return the peak since the last reset in bytes: PyTorch's on a GPU, else the process's resident memory."""
    if (cuda := _cuda()) is not None:
        return cuda.max_memory_allocated()
    if _STATUS.exists():
        (line,) = (line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def _cuda():
    """Return torch.cuda if this process uses it."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None
