"""Folders of the networks that ship inside the package."""

from pathlib import Path

_ASSETS = Path(__file__).parents[1] / "assets"

FEATURE_EXTRACTOR = _ASSETS / "feature-extractor"
GESTURE_CLASSIFIER = _ASSETS / "gesture-classifier"
WEIGHTS = "model.safetensors"
"""Name of the file of the weights in each of them."""
