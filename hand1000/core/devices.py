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


def available_memory() -> int:
    """Return the bytes of main memory that this process may still take, of the machine and of its container.

    Memory that holds only cached files counts as available. Where the system does not state it, this is 0.
    """
    try:
        (line,) = (line for line in _MEMINFO.read_text().splitlines() if line.startswith("MemAvailable:"))
        groups = [line.partition("::")[2] for line in _CGROUP.read_text().splitlines() if line.startswith("0::")]
    except (OSError, ValueError):
        return 0
    available: float = int(line.split()[1]) * 1024
    for group in groups:
        folder = Path("/sys/fs/cgroup") / group.strip("/")
        for path in (folder, *folder.parents):
            available = min(available, _cgroup_memory(path))
    return max(int(available), 0)


def _cgroup_memory(folder: Path) -> float:
    """Return the bytes that a control group leaves to its processes; infinity for one without a limit."""
    try:
        limit, used = (folder / "memory.max").read_text(), int((folder / "memory.current").read_text())
        values = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return int(limit) - used + int(values["inactive_file"]) + int(values["active_file"])
    except (OSError, ValueError, KeyError):
        return float("inf")


_MEMINFO, _CGROUP = Path("/proc/meminfo"), Path("/proc/self/cgroup")
_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def _cuda():
    """Return torch.cuda if this process uses it."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None
