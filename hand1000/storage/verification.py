"""Whether stored files still have the bytes that were written, by their sha256.

A file is read once in a process: `remembered_digest` knows it again by inode, size and times.
"""

import errno
import os
from collections.abc import Collection
from functools import partial
from pathlib import Path

from hand1000.core.errors import Hand1000Error
from hand1000.storage.digests import FileEntry, Manifest, forget_digest, in_threads, remembered_digest
from hand1000.storage.keys import safe_join

# A file in this state is not what was written. Any other error says nothing about its bytes.
_DAMAGE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO, errno.ELOOP)


def find_damage(folder: Path, manifest: Manifest, *, fresh: bool = False) -> str:
    """Return the name of the first file below `folder` that is not what the manifest states; "" if there is none.

    Args:
        folder: Folder of the files.
        manifest: What they must be.
        fresh: Whether to read also what this process has read before.

    Raises:
        Hand1000Error: A file cannot be read, for want of permission or of another resource.
    """
    damaged = damaged_entries(folder, manifest, fresh=fresh)
    return damaged[0].name if damaged else ""


def damaged_entries(
    folder: Path, manifest: Manifest, *, known: Collection[str] = (), fresh: bool = False
) -> tuple[FileEntry, ...]:
    """Return the files of a manifest below `folder` that are not what it states, without reading those of `known`."""
    entries = [entry for entry in manifest.files if entry.name not in known]
    intact = in_threads(partial(is_intact, folder, fresh=fresh), entries)
    return tuple(entry for entry, is_whole in zip(entries, intact, strict=True) if not is_whole)


def is_intact(folder: Path, entry: FileEntry, *, fresh: bool = False) -> bool:
    """Return whether a file below `folder` has the size and sha256 of `entry`; see `find_damage`."""
    path = safe_join(folder, entry.name)
    try:
        if fresh:
            forget_digest(path)
        return os.stat(path).st_size == entry.size and remembered_digest(path) == entry.sha256
    except OSError as error:
        if error.errno in _DAMAGE:
            return False
        raise Hand1000Error(f"{path}: cannot be read: {error.strerror}") from error
