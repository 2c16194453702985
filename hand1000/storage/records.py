"""Small JSON records with their own checksum, so that a damaged or foreign one is never taken for what was written.

A record is `{"name": ..., "sha256": ..., "value": ...}` in canonical form. The name binds it to its place: a record
that was copied to another one is foreign there. Whoever reads a record says whether it is a cache, which may be absent,
or the only truth.
"""

import json
import logging
from pathlib import Path
from typing import Any

from hand1000.core.errors import Hand1000Error
from hand1000.storage.digests import DamagedError, canonical_json, digest_json
from hand1000.storage.files import write_bytes

logger = logging.getLogger(__name__)


def encode_record(name: str, value: object) -> bytes:
    """Return the bytes of the record of a JSON value or pydantic model; `name` is the record's key or file name."""
    text = canonical_json({"name": name, "sha256": digest_json([name, value]), "value": value})
    return text.encode()


def decode_record(name: str, data: bytes) -> Any:
    """Return the value in `data`, the bytes of the record `name`.

    Raises:
        DamagedError: They are not the bytes that `encode_record` makes of this name and any value.
    """
    try:
        value = json.loads(data.decode())["value"]
        is_whole = encode_record(name, value) == data
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DamagedError(f"{name}: damaged, or not a record of hand1000") from error
    if not is_whole:
        raise DamagedError(f"{name}: damaged, or the record of something else")
    return value


def write_record(path: Path, value: object) -> None:
    """Write a JSON value or a pydantic model as a record, atomically."""
    write_bytes(path, encode_record(path.name, value))


def read_record(path: Path, *, required: bool) -> Any:
    """Return the value that `write_record` wrote to `path`.

    Args:
        path: File of the record, which may have been moved together with its folder.
        required: Whether the record is the only truth. If not, a missing, damaged or foreign one reads as None.

    Raises:
        Hand1000Error: The file cannot be read; or the record is required and missing, damaged or foreign.
    """
    try:
        return decode_record(path.name, path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        if required:
            raise DamagedError(f"{path}: no such record; restore it from a copy") from None
    except OSError as error:
        raise Hand1000Error(f"{path}: cannot be read: {error.strerror}") from error
    except DamagedError as error:
        if required:
            raise DamagedError(f"{path.parent}/{error}; restore it from a copy") from error
        logger.warning("%s/%s; skipped", path.parent, error)
    return None
