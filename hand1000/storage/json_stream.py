"""An iterator over the members of a large JSON object that never holds the whole object in memory."""

import re
from collections.abc import Iterator
from typing import BinaryIO

from msgspec import DecodeError, Raw, json

BLOCK_BYTES = 1 << 20
"""Number of bytes in one read; a member up to this size is sure to be parsed."""
_LEADING = b"\xef\xbb\xbf \t\r\n"
_COMMA = re.compile(rb"\s*,")
_decoder = json.Decoder(dict[str, Raw])


class MalformedJsonError(Exception):
    """A text is not one JSON object, from some byte on."""


def iter_members(stream: BinaryIO) -> Iterator[tuple[str, Raw]]:
    """Yield each member's name and its value as text that is not decoded yet.

    Args:
        stream: The object in UTF-8.

    Raises:
        MalformedJsonError: Not a JSON object, or a member longer than `BLOCK_BYTES`; the members before the error are
            yielded first.
    """
    text = stream.read(BLOCK_BYTES).lstrip(_LEADING)
    if text[:1] != b"{":
        raise MalformedJsonError("not a JSON object" if text else "empty")
    while block := stream.read(BLOCK_BYTES):
        text += block
        complete, end = _complete_members(text)
        yield from complete.items()
        text = b"{" + text[end:]
        if len(text) > 2 * BLOCK_BYTES:
            break
    try:
        yield from _decoder.decode(text).items()
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        complete, _ = _complete_members(text)
        yield from complete.items()
        raise MalformedJsonError(f"not JSON: {error}") from error


def _complete_members(text: bytes) -> tuple[dict[str, Raw], int]:
    """Return the members that are complete at the beginning of an object, and where the next one begins.

    Cut after a brace and a comma and closed with a brace, a beginning is JSON exactly if the cut is between two members
    of the outermost object. So the cuts are tried, from the last one back.
    """
    end = len(text)
    while (end := text.rfind(b"}", 0, end)) > 0:
        if comma := _COMMA.match(text, end + 1):
            try:
                return _decoder.decode(text[: end + 1] + b"}"), comma.end()
            except (DecodeError, UnicodeDecodeError, RecursionError):
                continue
    return {}, 1
