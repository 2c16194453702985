"""Short, printable forms of names and values that come from outside, for the one line of an error."""

import reprlib
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from hand1000.core.errors import escape_unprintable

MAX_NAME = 80
MAX_MESSAGE = 1500

_repr = reprlib.Repr()
_repr.maxlevel, _repr.maxstring, _repr.maxother = 3, 10_000, 10_000
_repr.maxdict = _repr.maxlist = _repr.maxtuple = _repr.maxset = 12


def shorten(text: str, length: int = MAX_NAME) -> str:
    """Return `text` in one printable line of at most `length` characters; the middle of a longer one is left out."""
    if len(text) > length:
        text = f"{text[: length * 2 // 3]}...{text[len(text) - (length - length * 2 // 3 - 3) :]}"
    return escape_unprintable(text)


def describe_value(value: Any) -> str:
    """Return the `repr` of a value of any size and depth, or of what it begins with."""
    try:
        return _repr.repr(value)
    except (ValueError, RecursionError):  # An integer of thousands of digits.
        return f"{type(value).__name__} of too many digits"


def suggest(name: str, accepted: Iterable[str]) -> str:
    """Return "; did you mean NAME?" if a name of `accepted` is near to `name`, else ""."""
    near = get_close_matches(name[:MAX_NAME], list(accepted), 1)
    return f"; did you mean {near[0]}?" if near else ""
