"""The process that works on a run, as a tag: a run is abandoned if its process does not run any more."""

import os
import socket
from pathlib import Path

PROCESS = "hand1000.process"
"""Tag of a stage's run: the host, id and start of the process that worked on it last."""


def this_process() -> str:
    """Return the tag of this process: `host pid start`."""
    return f"{socket.gethostname()} {os.getpid()} {_start_of(os.getpid())}"


def is_alive(process: str) -> bool:
    """Return whether the process of a tag runs on this host; False for one of another host, which nobody can ask."""
    parts = process.split(" ")
    if len(parts) != 3 or parts[0] != socket.gethostname() or not parts[1].isdecimal():
        return False
    return parts[2] != "" and _start_of(int(parts[1])) == parts[2]


def _start_of(pid: int) -> str:
    """Return the start of a process in clock ticks since the boot, "" without such a process; ids are used again."""
    try:
        # The name of the program, in parentheses, may contain spaces.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]
