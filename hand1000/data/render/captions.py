"""Captions of rendered images, which describe everything but the gesture."""

import re
from dataclasses import dataclass

import numpy as np

from hand1000.data.render.people import LIGHTS, SKINS, SLEEVES, WALLS
from hand1000.gestures import PHRASES, gesture_phrase

_TEMPLATES = (
    "a photo of a {hand} hand with {skin} skin and a {sleeve} sleeve in front of a {wall} wall",
    "a photo of a {hand} hand with {skin} skin and a {sleeve} sleeve in front of a {wall} wall in {light} light",
    "a {hand} hand with {skin} skin in a {sleeve} sleeve, {wall} wall behind, {light} light",
    "a person in a {sleeve} sleeve shows a {hand} hand with {skin} skin before a {wall} wall",
    "a {light} photo of a {skin} {hand} hand in a {sleeve} sleeve, the background is a {wall} wall",
    "the {hand} hand of a person with {skin} skin, wearing a {sleeve} sleeve, near a {wall} wall in {light} light",
)
_HANDS = ("left", "right")


@dataclass(frozen=True)
class Attributes:
    """The words that describe an image: left or right, and keys of `SKINS`, `SLEEVES`, `WALLS` and `LIGHTS`."""

    hand: str
    skin: str
    sleeve: str
    wall: str
    light: str


def _fill(template: str, words: Attributes) -> str:
    text = template.format(**vars(words))
    return re.sub(r"\ba (?=orange)", "an ", text)


def describe(words: Attributes, rng: np.random.Generator) -> str:
    """Return a caption with a sentence sampled from `rng`; it does not name the gesture."""
    return _fill(_TEMPLATES[int(rng.integers(len(_TEMPLATES)))], words)


def with_gesture(caption: str, gesture: str) -> str:
    """Return `caption` with the phrase of `gesture` at its end."""
    return f"{caption}, {gesture_phrase(gesture)}"


def vocabulary() -> tuple[str, ...]:
    """Return every word and comma that captions and phrases can have, in lower case and sorted."""
    fields = {"hand": _HANDS, "skin": SKINS, "sleeve": SLEEVES, "wall": WALLS, "light": LIGHTS}
    texts = [re.sub(r"\{\w+\}", " ", template) for template in _TEMPLATES] + list(PHRASES.values())
    texts += [word for words in fields.values() for word in words] + ["an", ","]
    return tuple(sorted({token for text in texts for token in re.findall(r"[a-z]+|[0-9]|,", text)}))
