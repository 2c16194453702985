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
        groups = [line.split(":", 2) for line in _CGROUP.read_text().splitlines()]
    except (OSError, ValueError):
        return 0
    available: float = int(line.split()[1]) * 1024
    for _, controllers, group in groups:
        root = _CGROUPS / "memory" if "memory" in controllers.split(",") else _CGROUPS
        folder = root / group.strip("/")
        for path in (folder, *folder.parents):
            available = min(available, _cgroup_memory(path))
    return max(int(available), 0)


def _cgroup_memory(folder: Path) -> float:
    """Return the bytes that a control group of version 1 or 2 leaves to its processes; infinity without a limit."""
    for limit, used, prefix in (
        ("memory.max", "memory.current", ""),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ):
        try:
            values = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            files = int(values[f"{prefix}inactive_file"]) + int(values[f"{prefix}active_file"])
            return int((folder / limit).read_text()) - int((folder / used).read_text()) + files
        except (OSError, ValueError, KeyError):
            continue
    return float("inf")


_MEMINFO, _CGROUP, _CGROUPS = Path("/proc/meminfo"), Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def _cuda():
    """Return torch.cuda if this process uses it."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None
