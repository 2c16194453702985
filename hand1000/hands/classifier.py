"""The gesture classifier: a small network from a hand's landmarks to the gestures of HaGRID v1.

The evaluation uses it to check that a generated hand makes the target gesture. The weights that ship are in
`hand1000/assets/gesture-classifier`; `hand1000.hands.train_classifier` trained them.
"""

from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

from hand1000.core.assets import GESTURE_CLASSIFIER, WEIGHTS
from hand1000.core.errors import Hand1000Error, one_line
from hand1000.gestures import HAGRID_V1, NO_GESTURE
from hand1000.hands.stage1 import FEATURE_DIM, normalize_landmarks
from hand1000.storage.digests import digest_file
from hand1000.storage.files import write_bytes, write_json
from hand1000.storage.pretrained import check_config
from hand1000.storage.weights import load_weights

CLASSES: tuple[str, ...] = (*HAGRID_V1, NO_GESTURE)

_CONFIG = "config.json"


class GestureClassifier:
    """Classifies hands into C gestures, with hidden layers of the given widths.

    Its input is normalized by `normalize_landmarks`, which keeps the rotation: `like` and `dislike` differ in nothing
    else.
    """

    def __init__(self, hidden: tuple[int, ...] = (128, 64), classes: tuple[str, ...] = CLASSES) -> None:
        self.hidden, self.classes = hidden, classes
        self.sha256 = ""
        widths = (FEATURE_DIM, *hidden)
        layers: list[nn.Module] = []
        for in_features, out_features in pairwise(widths):
            layers += [nn.Linear(in_features, out_features), nn.GELU()]
        self.network = nn.Sequential(*layers, nn.Linear(widths[-1], len(classes))).eval()

    @torch.inference_mode()
    def predict(self, landmarks: np.ndarray, right: np.ndarray) -> tuple[list[str], np.ndarray]:
        """Return the most likely gestures of N hands, and the probabilities of all `classes`, (N, C) float32.

        `landmarks`, (N, 21, 3), are MediaPipe's in square images; `right`, (N,) bool, marks right hands.
        """
        features = normalize_landmarks(landmarks, right).reshape(-1, FEATURE_DIM)
        probabilities = self.network(torch.from_numpy(features)).softmax(dim=1).numpy()
        return [self.classes[index] for index in probabilities.argmax(axis=1)], probabilities

    def save_pretrained(self, directory: Path) -> None:
        """Write `model.safetensors` and `config.json`."""
        write_bytes(directory / WEIGHTS, save(self.network.state_dict()))
        write_json(directory / _CONFIG, {"classes": self.classes, "hidden": self.hidden})

    @classmethod
    def from_pretrained(cls, directory: Path = GESTURE_CLASSIFIER) -> Self:
        """Load the classifier in `directory` and set `sha256` to the digest of its weights.

        Raises:
            Hand1000Error: A file is missing or malformed.
        """
        config = check_config(directory / _CONFIG)
        path = directory / WEIGHTS
        try:
            self = cls(tuple(config["hidden"]), tuple(config["classes"]))
        except (KeyError, TypeError, RuntimeError, ValueError) as error:
            reason = one_line(error)
            raise Hand1000Error(
                f"{path}: cannot be loaded as a gesture classifier: {reason}; train it again"
            ) from error
        load_weights(self.network, path, "a gesture classifier", "train it again")
        self.sha256 = digest_file(path)
        return self
