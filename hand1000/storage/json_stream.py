"""The members of one large JSON object, one after another, without the whole of it in memory."""

import re
from collections.abc import Iterator
from typing import BinaryIO

from msgspec import DecodeError, Raw, json

BLOCK = 1 << 20
"""Bytes read at a time; also the longest member that is sure to be read."""
_BEFORE = b"\xef\xbb\xbf \t\r\n"
_COMMA = re.compile(rb"\s*,")
_object = json.Decoder(dict[str, Raw])


class MalformedJson(Exception):
    """A text that is not one JSON object, from some byte on."""


def members(stream: BinaryIO) -> Iterator[tuple[str, Raw]]:
    """Each member's name and its value, as text that is not decoded yet.

    Args:
        stream: the object, in UTF-8.

    Raises:
        MalformedJson: not a JSON object, or a member longer than `BLOCK`; the members before the fault come first.
    """
    text = stream.read(BLOCK).lstrip(_BEFORE)
    if text[:1] != b"{":
        raise MalformedJson("not a JSON object" if text else "empty")
    while block := stream.read(BLOCK):
        text += block
        whole, end = _whole_members(text)
        yield from whole.items()
        text = b"{" + text[end:]
        if len(text) > 2 * BLOCK:
            break
    try:
        yield from _object.decode(text).items()
    except DecodeError as error:
        whole, _ = _whole_members(text)
        yield from whole.items()
        raise MalformedJson(f"not JSON: {error}") from error


def _whole_members(text: bytes) -> tuple[dict[str, Raw], int]:
    """The members that are whole in the beginning of an object, and where the next one begins.

    Cut after a brace and a comma and closed with a brace, a beginning is JSON exactly if it was cut between two members
    of the outermost object. So the cuts are tried, from the last one back.
    """
    end = len(text)
    while (end := text.rfind(b"}", 0, end)) > 0:
        if comma := _COMMA.match(text, end + 1):
            try:
                return _object.decode(text[: end + 1] + b"}"), comma.end()
            except DecodeError:
                continue
    return {}, 1
