"""Where models compute, and how much memory they take there."""

import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def best_device() -> "torch.device":
    """The accelerator where there is one, else the CPU."""
    import torch

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator or torch.device("cpu")


def reset_peak_memory() -> None:
    """Forget what was allocated before; a Mac can not, and tells of the process since its start."""
    if (cuda := _cuda()) is not None:
        cuda.reset_peak_memory_stats()
    elif _CLEAR.exists():
        _CLEAR.write_text("5")


def peak_memory() -> int:
    """Bytes at most since the last reset: what PyTorch allocated on a GPU, else the process's resident memory."""
    if (cuda := _cuda()) is not None:
        return cuda.max_memory_allocated()
    if _STATUS.exists():
        (line,) = (line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def _cuda():
    """torch.cuda if this process has come to use it."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None
