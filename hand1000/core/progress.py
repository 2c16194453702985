"""The protocols through which a long computation reports progress and saves its state."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

ProgressCallback = Callable[[int, int, dict[str, float]], None]
"""Called with the number of finished steps, the total number of steps and the metrics of the last step."""


def noop_callback(done: int, total: int, metrics: dict[str, float] | None = None) -> None:
    """Ignore the progress."""


class CheckpointStore(Protocol):
    """Storage for the state of an unfinished stage; `hand1000.storage.artifacts` has the durable one."""

    def restore(self, directory: Path) -> bool:
        """Copy the last saved state into `directory`; return False when there is none."""
        ...

    def save(self, directory: Path) -> None:
        """Save `directory` as the new state; a crash on the way leaves the previous one."""
        ...


class NullCheckpointStore:
    """A `CheckpointStore` that saves nothing."""

    def restore(self, directory: Path) -> bool:
        """Return False: there is never a state."""
        return False

    def save(self, directory: Path) -> None:
        """Drop `directory`."""
