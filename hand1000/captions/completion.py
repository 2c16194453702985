"""A caption that names its gesture: the phrase of `hand1000.gestures`, exactly once, at the end."""

import re
import unicodedata

from hand1000.captions.gesture_words import remove_gesture_words
from hand1000.gestures import PHRASES, gesture_phrase

_QUOTES = "\"'`\u2018\u2019\u201c\u201d\u00ab\u00bb"
_MARKS = " ,;:.-"
# With what joins a phrase to the words before it.
_ANY_PHRASE = re.compile(
    r"[\s,;.]*(?:\b(?:and|while|who is|is)\s+)*(?<!\w)(?:"
    + "|".join(re.escape(phrase) for phrase in PHRASES.values())
    + r")(?!\w)",
    re.IGNORECASE,
)


def complete_caption(caption: str, gesture: str) -> str:
    """`caption` in one line, without quotes around it, ending with the phrase of `gesture`.

    A caption that ends with its phrase and names no other gesture is kept. Else all phrases, and the words by which
    captioners name gestures ("giving a thumbs up"), are taken out first, so that the right phrase is there exactly
    once and nothing contradicts it. An empty caption becomes "a hand, <phrase>".

    Raises:
        Hand1000Error: HaGRID has no such gesture.
    """
    phrase = gesture_phrase(gesture)
    text = to_plain_text(caption)
    rest = _without_phrases(text)
    if rest and text.endswith(f" {phrase}") and len(_ANY_PHRASE.findall(text)) == 1 and rest == _without_phrase(text):
        return text
    return f"{rest or 'a hand'}, {phrase}"


def _without_phrase(text: str) -> str:
    while (shorter := _ANY_PHRASE.sub("", text)) != text:
        text = shorter  # Again, since what is left and right of one may be another.
    return to_plain_text(to_plain_text(text).strip(_MARKS))


def _without_phrases(text: str) -> str:
    return to_plain_text(remove_gesture_words(_without_phrase(text)).strip(_MARKS))


def to_plain_text(caption: str) -> str:
    """`caption` in one line with single blanks, without control characters and without quotes around it."""
    text = unicodedata.normalize("NFC", caption)
    text = "".join(" " if unicodedata.category(mark).startswith(("C", "Z")) else mark for mark in text)
    text = " ".join(text.split())
    while len(text) >= 2 and text[0] in _QUOTES and text[-1] in _QUOTES:
        text = text[1:-1].strip()
    return text
