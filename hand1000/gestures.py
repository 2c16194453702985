"""The gestures of HaGRID, 18 in version 1 and 33 in version 2, and the phrases that name them.

Every training caption and every prompt contains the phrase exactly once (paper, section "Dataset construction").
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from hand1000.core.errors import Hand1000Error

PHRASES: dict[str, str] = {
    # HaGRID v1; call, four, like, mute, ok and palm are the six of the paper.
    "call": "making phone call hand gesture",
    "dislike": "making thumbs down hand gesture",
    "fist": "making closed fist hand gesture",
    "four": "making four fingers up hand gesture",
    "like": "making thumbs up hand gesture",
    "mute": "making finger on lips hand gesture",
    "ok": "making ok sign hand gesture",
    "one": "making one finger up hand gesture",
    "palm": "making open palm hand gesture",
    "peace": "making peace sign hand gesture",
    "peace_inverted": "making inverted peace sign hand gesture",
    "rock": "making rock sign hand gesture",
    "stop": "making stop sign hand gesture",
    "stop_inverted": "making inverted stop sign hand gesture",
    "three": "making three fingers up hand gesture",
    "three2": "making thumb and two fingers up hand gesture",
    "two_up": "making two joined fingers up hand gesture",
    "two_up_inverted": "making two joined inverted fingers hand gesture",
    # HaGRID v2.
    "grabbing": "making grabbing hand gesture",
    "grip": "making grip hand gesture",
    "hand_heart": "making two hands heart gesture",
    "hand_heart2": "making index fingers heart gesture",
    "holy": "making joined palms hand gesture",
    "little_finger": "making little finger up hand gesture",
    "middle_finger": "making middle finger up hand gesture",
    "point": "making pointing finger hand gesture",
    "take_picture": "making camera frame hand gesture",  # codespell:ignore picture
    "three3": "making index middle and little finger hand gesture",
    "three_gun": "making finger gun with three fingers hand gesture",
    "thumb_index": "making thumb and index finger hand gesture",
    "thumb_index2": "making two hands thumb and index finger gesture",
    "timeout": "making timeout hand gesture",
    "xsign": "making crossed hands gesture",
}

HAGRID_V1: tuple[str, ...] = tuple(list(PHRASES)[:18])
"""The 18 gestures of HaGRID v1, in alphabetical order."""

HAGRID_V2: tuple[str, ...] = tuple(PHRASES)
"""The 33 gestures of HaGRID v2: those of v1, followed by the 15 new ones in alphabetical order."""

TWO_HANDED: tuple[str, ...] = (
    "hand_heart",
    "hand_heart2",
    "holy",
    "take_picture",  # codespell:ignore picture
    "thumb_index2",
    "timeout",
    "xsign",
)
"""The gestures that two hands make together; HaGRID labels both hands with it, and a box around both."""

NO_GESTURE = "no_gesture"
"""HaGRID's label for a hand that makes none of the gestures."""

_MAX_NAME_LENGTH = 100
_MAX_PROMPT_LENGTH = 80


class _HasGesture(Protocol):
    @property
    def gesture(self) -> str: ...


T = TypeVar("T", bound=_HasGesture)


def gesture_phrase(gesture: str) -> str:
    """Return the phrase of a gesture; Hand1000Error for a gesture that HaGRID does not have."""
    try:
        return PHRASES[gesture]
    except KeyError:
        known = ", ".join(sorted(PHRASES))
        raise Hand1000Error(f"unknown gesture {gesture!r}; choose one of: {known}") from None


def parse_gestures(text: str) -> tuple[str, ...]:
    """Split a list such as `call,four,like`.

    Raises:
        Hand1000Error: HaGRID does not have a gesture, or it is repeated.
    """
    gestures = tuple(text.split(","))
    for gesture in gestures:
        gesture_phrase(gesture)
        if gestures.count(gesture) > 1:
            raise Hand1000Error(f"gesture: {gesture} is repeated in {text!r}; name each once")
    return gestures


def slug(gestures: Sequence[str]) -> str:
    """Return a short name of several gestures: `call-four-like`, or their number and a digest of very many."""
    name = "-".join(gestures)
    if len(name) <= _MAX_NAME_LENGTH:
        return name
    return f"{len(gestures)}-gestures-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def find_gesture_in_prompt(prompt: str, gestures: Sequence[str]) -> str:
    """Return the gesture that a prompt asks a model with these `gestures` for, by the phrase in the prompt.

    Raises:
        Hand1000Error: The model knows several, and the prompt contains the phrase of none or of more than one.
    """
    if len(gestures) == 1:
        return gestures[0]
    text = " ".join(prompt.split())
    named = [gesture for gesture in gestures if gesture_phrase(gesture) in text.lower()]
    if len(named) != 1:
        start = text if len(text) <= _MAX_PROMPT_LENGTH else f"{text[:_MAX_PROMPT_LENGTH]}..."
        raise Hand1000Error(
            f"prompt {start!r}: contains the phrase of {' and of '.join(named) or 'none'} of this model's gestures, "
            f"{', '.join(gestures)}; use that of one (`hand1000 gestures` lists them), or set `gesture`"
        )
    return named[0]


def group_by_gesture(items: Iterable[T]) -> dict[str, list[T]]:
    """Group items by gesture, in the order of the gestures' first items."""
    groups: dict[str, list[T]] = {}
    for item in items:
        groups.setdefault(item.gesture, []).append(item)
    return groups
