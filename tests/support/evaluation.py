"""Features and metrics with the shipped networks."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from hand1000.core.progress import ProgressCallback, noop_callback
from hand1000.evaluation.extractors import SmallExtractor
from hand1000.evaluation.features import ImageFeatures, extract_features
from hand1000.evaluation.metrics import Metrics, compute_metrics
from hand1000.hands.classifier import GestureClassifier
from tests.support.rendered_hands import RenderedHand


def blank(hand: RenderedHand) -> RenderedHand:
    """The same record with a gray image."""
    return replace(hand, pixels=np.full_like(hand.pixels, 120))


def extract(folder: Path, on_progress: ProgressCallback = noop_callback) -> ImageFeatures:
    """Extract the features of an image set."""
    return extract_features(
        folder, extractor=SmallExtractor.from_pretrained(), min_detection_confidence=0.5, on_progress=on_progress
    )


def compute(real: ImageFeatures, fake: ImageFeatures, gesture: str | None = "call") -> Metrics:
    """Compute the metrics of generated images that should show `gesture`."""
    return compute_metrics(real, fake, classifier=GestureClassifier.from_pretrained(), seed=1, gesture=gesture)
