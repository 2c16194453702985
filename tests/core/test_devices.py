"""The memory that a process may still take, of its machine and of its container."""

from pathlib import Path

import pytest

from hand1000.core import devices
from hand1000.core.devices import available_memory

V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
V2 = ("memory.max", "memory.current", "")


def control_group(folder: Path, names: tuple[str, str, str], limit: str) -> None:
    """A group that uses 600 bytes, 200 of them for cached files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text("600\n")
    (folder / "memory.stat").write_text(f"anon 400\n{names[2]}inactive_file 150\n{names[2]}active_file 50\n")


@pytest.mark.parametrize(
    ("names", "line", "folder"),
    [
        (V2, "0::/pod/box", "pod/box"),
        (V2, "0::/pod/box", "pod"),
        (V1, "4:cpu,memory:/pod", "memory/pod"),
        (V1, "4:memory:/x", "memory"),
    ],
)
def test_a_container_bounds_the_memory(tmp_path, monkeypatch, names, line, folder):
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 8 kB\n")
    (tmp_path / "cgroup").write_text(f"1:name=systemd:/\n{line}\n")
    for name, path in (("_MEMINFO", "meminfo"), ("_CGROUP", "cgroup"), ("_CGROUPS", "groups")):
        monkeypatch.setattr(devices, name, tmp_path / path)
    assert available_memory() == 8192
    control_group(tmp_path / "groups" / folder, names, "1000")
    assert available_memory() == 600
    control_group(tmp_path / "groups" / folder, names, "100")
    assert available_memory() == 0
    control_group(tmp_path / "groups" / folder, names, "max")
    assert available_memory() == 8192


def test_memory_that_the_system_does_not_state_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "_MEMINFO", tmp_path / "absent")
    assert available_memory() == 0
