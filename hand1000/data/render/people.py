"""Rendered people, and the captions, words and colors that describe an image but not the gesture."""

import re
from dataclasses import dataclass

import numpy as np

from hand1000.data.render.skeleton import HandShape

# All colors are sRGB, 0 to 1.
SKINS: dict[str, tuple[float, float, float]] = {
    "pale": (0.95, 0.80, 0.73),
    "light": (0.88, 0.67, 0.54),
    "tan": (0.76, 0.53, 0.38),
    "brown": (0.58, 0.39, 0.28),
    "dark": (0.41, 0.27, 0.20),
}
SLEEVES: dict[str, tuple[float, float, float]] = {
    "red": (0.76, 0.10, 0.12),
    "orange": (0.95, 0.50, 0.08),
    "yellow": (0.95, 0.82, 0.15),
    "green": (0.12, 0.52, 0.22),
    "blue": (0.12, 0.25, 0.72),
    "purple": (0.48, 0.18, 0.62),
    "white": (0.93, 0.93, 0.92),
    "black": (0.10, 0.10, 0.11),
}
WALLS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.33, 0.35),
    "orange": (0.97, 0.70, 0.38),
    "yellow": (0.95, 0.90, 0.50),
    "green": (0.35, 0.66, 0.42),
    "blue": (0.32, 0.50, 0.80),
    "purple": (0.56, 0.38, 0.70),
    "white": (0.93, 0.93, 0.92),
    "gray": (0.52, 0.53, 0.54),
}
LIGHTS: dict[str, tuple[float, tuple[float, float, float]]] = {
    "bright": (1.22, (1.0, 1.0, 1.0)),
    "dim": (0.80, (1.0, 1.0, 1.0)),
    "warm": (1.02, (1.08, 1.0, 0.84)),
    "cool": (1.02, (0.90, 1.0, 1.14)),
}
"""Exposure and tint (linear factors) of each lighting word."""

_TEMPLATES = (
    "a photo of a {hand} hand with {skin} skin and a {sleeve} sleeve in front of a {wall} wall",
    "a photo of a {hand} hand with {skin} skin and a {sleeve} sleeve in front of a {wall} wall in {light} light",
    "a {hand} hand with {skin} skin in a {sleeve} sleeve, {wall} wall behind, {light} light",
    "a person in a {sleeve} sleeve shows a {hand} hand with {skin} skin before a {wall} wall",
    "a {light} photo of a {skin} {hand} hand in a {sleeve} sleeve, the background is a {wall} wall",
    "the {hand} hand of a person with {skin} skin, wearing a {sleeve} sleeve, near a {wall} wall in {light} light",
)
_TEMPLATES_OF_TWO_HANDS = (
    "a photo of two hands with {skin} skin and {sleeve} sleeves in front of a {wall} wall",
    "a photo of two hands with {skin} skin and {sleeve} sleeves in front of a {wall} wall in {light} light",
    "two hands with {skin} skin in {sleeve} sleeves, {wall} wall behind, {light} light",
    "a person in {sleeve} sleeves shows two hands with {skin} skin before a {wall} wall",
    "a {light} photo of two {skin} hands in {sleeve} sleeves, the background is a {wall} wall",
    "two hands of a person with {skin} skin, wearing {sleeve} sleeves, near a {wall} wall in {light} light",
)

BOTH = "both"
"""The handedness of an image of two hands that make one gesture."""


@dataclass(frozen=True)
class Person:
    """What all images of one rendered person have in common.

    `skin_color` and `sleeve_color` are sRGB from 0 to 1; `sleeve_start` and `sleeve_width` are in palm lengths.
    """

    user_id: str
    skin: str
    skin_color: tuple[float, float, float]
    sleeve: str
    sleeve_color: tuple[float, float, float]
    sleeve_start: float
    sleeve_width: float
    shape: HandShape


def shade(base: tuple[float, float, float], rng: np.random.Generator, spread: float) -> tuple[float, float, float]:
    """Return `base` (sRGB, 0 to 1) with lightness and hue shifted by about `spread`, still within 0 to 1."""
    color = np.clip(np.array(base) * rng.normal(1.0, spread) + rng.normal(0.0, 0.4 * spread, 3), 0.02, 0.98)
    return float(color[0]), float(color[1]), float(color[2])


def make_person(user_id: str, rng: np.random.Generator) -> Person:
    """Sample a person from `rng`; the same generator state gives the same person."""
    skin, sleeve = str(rng.choice(list(SKINS))), str(rng.choice(list(SLEEVES)))
    shape = HandShape(
        finger_length=float(np.clip(rng.normal(1.0, 0.05), 0.9, 1.12)),
        finger_width=float(np.clip(rng.normal(1.0, 0.07), 0.87, 1.15)),
        palm_width=float(np.clip(rng.normal(1.0, 0.05), 0.9, 1.1)),
        thumb_length=float(np.clip(rng.normal(1.0, 0.05), 0.9, 1.12)),
    )
    return Person(
        user_id=user_id,
        skin=skin,
        skin_color=shade(SKINS[skin], rng, 0.035),
        sleeve=sleeve,
        sleeve_color=shade(SLEEVES[sleeve], rng, 0.05),
        sleeve_start=float(rng.uniform(0.14, 0.36)),
        sleeve_width=float(rng.uniform(0.33, 0.40)),
        shape=shape,
    )


@dataclass(frozen=True)
class Attributes:
    """The words that describe an image: left, right or both, and keys of the tables above."""

    hand: str
    skin: str
    sleeve: str
    wall: str
    light: str


def describe(words: Attributes, rng: np.random.Generator) -> str:
    """Return a caption with a sentence sampled from `rng`; it does not name the gesture."""
    templates = _TEMPLATES_OF_TWO_HANDS if words.hand == BOTH else _TEMPLATES
    text = templates[int(rng.integers(len(templates)))].format(**vars(words))
    return re.sub(r"\ba (?=orange)", "an ", text)
