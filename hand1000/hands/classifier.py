"""The gesture classifier: a small network from a hand's landmarks to the gestures of HaGRID.

The evaluation uses it to check that a generated hand makes the target gesture. The weights that ship are in
`hand1000/assets/gesture-classifier`; `hand1000.hands.train_classifier` trained them. `docs/gesture-classifier.md`
describes its data, its accuracy and its limits.
"""

from collections.abc import Iterable, Sequence
from copy import copy
from itertools import pairwise
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field
from safetensors.torch import save
from torch import nn

from hand1000.config.base import Fraction, FrozenSettings, validate_settings
from hand1000.core.assets import GESTURE_CLASSIFIER, WEIGHTS
from hand1000.gestures import HAGRID_V1, HAGRID_V2, NO_GESTURE
from hand1000.hands.stage1 import FEATURE_DIM
from hand1000.storage.digests import digest_file
from hand1000.storage.files import write_bytes, write_json
from hand1000.storage.hub import fetch_model_folder
from hand1000.storage.pretrained import check_config
from hand1000.storage.weights import load_weights

SAME_HANDS = {"thumb_index2": "thumb_index"}
"""Two-handed gestures of which each hand makes a one-handed gesture: only the number of hands distinguishes them."""

CLASSES: tuple[str, ...] = (*(gesture for gesture in HAGRID_V2 if gesture not in SAME_HANDS), NO_GESTURE)
"""The classes of the shipped classifier, which sees one hand at a time."""

EXCLUDED_WEIGHT = 0.25
"""How much of the probability of the gestures that a restricted classifier excludes counts as no gesture.

A hand of HaGRID v1 that resembles a gesture of version 2 keeps its name, and one that makes that gesture loses it.
"""

_CONFIG = "config.json"
_PALM = [0, 5, 9, 13, 17]


def hand_class(gesture: str) -> str:
    """Return the class of each hand that makes `gesture`."""
    return SAME_HANDS.get(gesture, gesture)


class ClassifierConfig(FrozenSettings):
    """`config.json` of a gesture classifier.

    Attributes:
        classes: Gestures, and `no_gesture`, in the order of the network's outputs.
        hidden: Widths of the hidden layers.
        dimensions: 3 to use MediaPipe's depth, 2 if the training landmarks had none.
        temperature: Divisor of the network's outputs that calibrates the probabilities.
        reject_below: A hand whose most likely gesture is less likely than this makes no gesture.
    """

    classes: tuple[str, ...] = Field(min_length=2, max_length=1000)
    hidden: tuple[int, ...] = Field(min_length=1, max_length=8)
    dimensions: Literal[2, 3] = 3
    temperature: float = Field(default=1.0, gt=0, le=100)
    reject_below: Fraction = 0.0


class GestureClassifier:
    """Classifies hands into C gestures."""

    def __init__(self, config: ClassifierConfig) -> None:
        self.config = config
        self.sha256 = ""
        self._requested = config.classes
        widths = (FEATURE_DIM, *config.hidden)
        layers: list[nn.Module] = []
        for in_features, out_features in pairwise(widths):
            layers += [nn.Linear(in_features, out_features), nn.GELU()]
        self.network = nn.Sequential(*layers, nn.Linear(widths[-1], len(config.classes))).eval()

    @property
    def classes(self) -> tuple[str, ...]:
        """The gestures that it distinguishes, in the order of the probabilities."""
        return self._requested

    def restricted_to(self, targets: Iterable[str]) -> Self:
        """Return the classifier for images that should show `targets`.

        If all of them are gestures of HaGRID v1, it distinguishes these only: similar gestures of version 2,
        such as point beside one, take no hands from them (see `EXCLUDED_WEIGHT`). Otherwise it is unchanged.
        """
        if not set(targets) <= set(HAGRID_V1):
            return self
        restricted = copy(self)
        restricted._requested = tuple(name for name in self.classes if name in HAGRID_V1 or name == NO_GESTURE)
        return restricted

    @torch.inference_mode()
    def compute_logits(self, landmarks: np.ndarray, right: np.ndarray) -> torch.Tensor:
        """Return the network's outputs for N hands before calibration and restriction, (N, C) float32."""
        return self.network(make_features(landmarks, right, self.config.dimensions))

    def predict(self, landmarks: np.ndarray, right: np.ndarray) -> tuple[list[str], np.ndarray]:
        """Return the gestures of N hands, and the probabilities of all `classes`, (N, C) float32.

        The gesture is the most likely one, or `no_gesture` for a hand that is rejected (`config.reject_below`).
        `landmarks`, (N, 21, 3), are MediaPipe's in square images; `right`, (N,) bool, marks right hands.
        """
        logits = self.compute_logits(landmarks, right) / self.config.temperature
        probabilities = self._select(logits.softmax(dim=1).numpy())
        best, likely = probabilities.argmax(axis=1), probabilities.max(axis=1, initial=0.0)
        rejects = NO_GESTURE in self.classes
        labels = [
            NO_GESTURE if rejects and value < self.config.reject_below else self.classes[index]
            for index, value in zip(best, likely, strict=True)
        ]
        return labels, probabilities

    def _select(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the probabilities of the requested classes, (N, C), which add up to 1."""
        if self._requested == self.config.classes:
            return probabilities
        columns = [self.config.classes.index(name) for name in self._requested]
        selected = probabilities[:, columns]
        if NO_GESTURE in self._requested:
            excluded = 1.0 - selected.sum(axis=1)
            selected[:, self._requested.index(NO_GESTURE)] += EXCLUDED_WEIGHT * np.maximum(excluded, 0.0)
        return selected / np.maximum(selected.sum(axis=1, keepdims=True), 1e-12)

    def save_pretrained(self, directory: Path) -> None:
        """Write `model.safetensors` and `config.json`."""
        write_bytes(directory / WEIGHTS, save(self.network.state_dict()))
        write_json(directory / _CONFIG, self.config.model_dump(mode="json"))

    @classmethod
    def from_pretrained(cls, directory: Path = GESTURE_CLASSIFIER) -> Self:
        """Load the classifier in `directory` and set `sha256` to the digest of its weights.

        Raises:
            Hand1000Error: A file is missing or malformed.
        """
        config = validate_settings(ClassifierConfig, check_config(directory / _CONFIG), directory / _CONFIG)
        path = directory / WEIGHTS
        self = cls(config)
        load_weights(self.network, path, "a gesture classifier", "train it again")
        self.sha256 = digest_file(path)
        return self


def make_features(landmarks: np.ndarray, right: np.ndarray, dimensions: int = 3) -> torch.Tensor:
    """Return the network's input for hands (N, 21, 3) in square images, (N, 63) float32.

    The middle of the palm becomes the origin, and the root mean square distance from it in the image 1. Left hands are
    mirrored. The rotation stays: `like` and `dislike` differ in nothing else. The scale does not depend on the depth,
    which MediaPipe only guesses, and which is 0 for `dimensions` 2.
    """
    hands = landmarks.astype(np.float64) - landmarks[:, _PALM].astype(np.float64).mean(axis=1, keepdims=True)
    scale = np.sqrt((hands[..., :2] ** 2).sum(axis=2).mean(axis=1))
    hands /= np.maximum(scale, 1e-6)[:, None, None]
    hands[~np.asarray(right, bool), :, 0] *= -1
    if dimensions == 2:
        hands[..., 2] = 0.0
    return torch.from_numpy(hands.astype(np.float32).reshape(-1, FEATURE_DIM))


def load_classifier(source: str = "") -> GestureClassifier:
    """Load a classifier that a person trained, from a folder, `s3://` or the hub; "" is the one that ships.

    Raises:
        Hand1000Error: A file is missing or malformed, or the hub id has no revision.
    """
    return GestureClassifier.from_pretrained(fetch_model_folder(source) if source else GESTURE_CLASSIFIER)


def make_config(classes: Sequence[str], dimensions: Literal[2, 3] = 3) -> ClassifierConfig:
    """Return the configuration of a network to be trained."""
    return ClassifierConfig(classes=tuple(classes), hidden=(256, 128), dimensions=dimensions)
