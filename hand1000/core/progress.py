"""What a stage tells its caller while it runs, and how it keeps its state."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

ProgressCallback = Callable[[int, int, dict[str, float]], None]
"""Is given the steps done, all steps, and what was measured at this one."""


class CheckpointStore(Protocol):
    """A place for the state of an unfinished stage; `hand1000.storage.artifacts` has the lasting one."""

    def restore(self, into: Path) -> bool:
        """Put the last saved state into `into`; False when there is none."""
        ...

    def save(self, directory: Path) -> None:
        """Keep `directory` as the state; a crash on the way leaves the previous one."""
        ...
