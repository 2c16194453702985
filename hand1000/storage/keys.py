"""Names that come from outside, and the paths that they may become.

Keys of a listing, entries of a manifest, members of an archive and file names in metadata are data of others. Whoever
makes a path of one calls `safe_join`; whoever only lists or counts them asks `find_key_fault`.
"""

import os
import unicodedata
from pathlib import Path

from hand1000.core.errors import Hand1000Error

_MAX_PART_BYTES = 255
_MAX_KEY_BYTES = 1024
_MAX_SHOWN = 120


def find_key_fault(key: str) -> str:
    """Return why `key` is not the plain relative path of a file, with `/` between its parts; "" if it is one."""
    if not key or key.startswith("/"):
        return "it is absolute" if key else "it is empty"
    if "\\" in key:
        return "it has a backslash"
    if any(unicodedata.category(char) in ("Cc", "Zl", "Zp") for char in key):
        return "it has a control character"
    try:
        data = key.encode()
    except UnicodeEncodeError:
        return "it is not UTF-8"
    parts = key.split("/")
    if "" in parts:
        return "it has an empty part"
    if "." in parts or ".." in parts:
        return "it has a part . or .."
    if len(data) > _MAX_KEY_BYTES or any(len(part) > _MAX_PART_BYTES for part in data.split(b"/")):
        return "it is too long"
    return ""


def safe_join(root: Path | str, key: str) -> Path:
    """Return the path of `key` below `root`.

    Raises:
        Hand1000Error: `key` is absolute, leaves `root`, or is no plain relative path; the message names it.
    """
    if fault := find_key_fault(key):
        raise Hand1000Error(f"{key[:_MAX_SHOWN]!r}: not a plain relative path ({fault}); rename it where it comes from")
    return Path(os.path.join(root, key))
