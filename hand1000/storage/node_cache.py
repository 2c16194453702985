"""Copies of what lies in a bucket, on this node: downloaded once for all of its processes, also if one is killed."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from hand1000.core.errors import translate_write_errors
from hand1000.storage.scratch import process_scratch

VARIABLE = "HAND1000_NODE_CACHE"
"""Names the folder. Without it each process has its own copies, which end with it."""


def node_cached_dir(digest: str, fill: Callable[[Path], None]) -> Path:
    """The folder of what `digest` names, to read from; processes that ask at once wait for the first.

    Args:
        digest: of the content; copies are never changed.
        fill: completes a folder that may hold some of its files already, each of them whole.
    """
    root = os.environ.get(VARIABLE)
    if not root:
        own = _own_folder() / uuid4().hex / digest
        fill(own)
        return own
    from filelock import FileLock

    folder = Path(root) / digest
    with translate_write_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            part = folder.with_name(f"{digest}.part")
            fill(part)
            with translate_write_errors(folder):
                os.rename(part, folder)
    return folder


@functools.cache
def _own_folder() -> Path:
    return process_scratch(None)
