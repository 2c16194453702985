"""Captions of rendered images, which describe everything but the gesture."""

import re
from dataclasses import dataclass

import numpy as np

_TEMPLATES = (
    "a photo of a {hand} hand with {skin} skin and a {sleeve} sleeve in front of a {wall} wall",
    "a photo of a {hand} hand with {skin} skin and a {sleeve} sleeve in front of a {wall} wall in {light} light",
    "a {hand} hand with {skin} skin in a {sleeve} sleeve, {wall} wall behind, {light} light",
    "a person in a {sleeve} sleeve shows a {hand} hand with {skin} skin before a {wall} wall",
    "a {light} photo of a {skin} {hand} hand in a {sleeve} sleeve, the background is a {wall} wall",
    "the {hand} hand of a person with {skin} skin, wearing a {sleeve} sleeve, near a {wall} wall in {light} light",
)


@dataclass(frozen=True)
class Attributes:
    """The words that describe an image: left or right, and keys of the tables in `people`."""

    hand: str
    skin: str
    sleeve: str
    wall: str
    light: str


def describe(words: Attributes, rng: np.random.Generator) -> str:
    """Return a caption with a sentence sampled from `rng`; it does not name the gesture."""
    text = _TEMPLATES[int(rng.integers(len(_TEMPLATES)))].format(**vars(words))
    return re.sub(r"\ba (?=orange)", "an ", text)
