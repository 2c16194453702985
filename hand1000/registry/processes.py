"""The process that works on a run, as a tag: a run is abandoned if its process does not run any more."""

import os
import socket
import time
from pathlib import Path

PROCESS = "hand1000.process"
"""Tag of a stage's run: the host, id and start of the process that worked on it last."""

HEARTBEAT = "hand1000.heartbeat"
"""Tag of a stage's run: when its process was last seen at work, in seconds since 1970."""

HEARTBEAT_SECONDS = 60.0
"""The least time between two heartbeats of a process."""

LOST_SECONDS = 3600.0
"""A process of another host that was not seen for this long is dead; it is silent while it loads or uploads a model."""


def this_process() -> str:
    """Return the tag of this process: `host pid start`."""
    return f"{socket.gethostname()} {os.getpid()} {_start_of(os.getpid())}"


def is_dead(process: str, seen: float) -> bool:
    """Return whether the process of a tag has ended.

    Args:
        process: The tag; a malformed one counts as a process of another host.
        seen: When it was last seen at work, in seconds since 1970; decides for another host, which nobody can ask.
    """
    parts = process.split(" ")
    if len(parts) != 3 or parts[0] != socket.gethostname() or not parts[1].isdecimal():
        return time.time() - seen > LOST_SECONDS
    return parts[2] == "" or _start_of(int(parts[1])) != parts[2]


def _start_of(pid: int) -> str:
    """Return the start of a process in clock ticks since the boot, "" without such a process; ids are used again."""
    try:
        # The name of the program, in parentheses, may contain spaces.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]
