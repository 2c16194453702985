"""The identity of an evaluation's models, read without loading one.

A finished evaluation is looked up by it, so that a repeated run imports no torch to find that there is nothing to do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hand1000.config.settings import EvaluationSettings
from hand1000.core.assets import FEATURE_EXTRACTOR, GESTURE_CLASSIFIER, WEIGHTS
from hand1000.core.errors import Hand1000Error
from hand1000.storage.digests import digest_file
from hand1000.storage.hub import fetch_model_folder, model_identity
from hand1000.storage.pretrained import check_config

if TYPE_CHECKING:
    from hand1000.evaluation.evaluator import Evaluator

INCEPTION, INCEPTION_SIZE = "inception-2015-12-05", 299
SMALL, SMALL_SIZE = "hand1000-small", 64
"""Names of the extractors, and the sides of their images in pixels."""

FOUNDATION = ("dinov2", "clip")
"""Extractors of the transformers library, which the settings name as `KIND:SOURCE`."""

_FOUNDATION_SIZE = 224
"""Side of the images of a configuration that states none, and the largest for DINOv2."""


@dataclass(frozen=True)
class EvaluatorSource:
    """The models that the settings of an evaluation name; nothing is loaded before `load`."""

    settings: EvaluationSettings

    def cache_key_fields(self) -> dict[str, Any]:
        """Return what the metrics depend on besides the images and the seed.

        Raises:
            Hand1000Error: A foundation model is missing or has another configuration.
        """
        return {
            "extractor": _identify_extractor(self.settings),
            "classifier": _identify_classifier(self.settings.gesture_classifier),
            "min_classifier_accuracy": self.settings.min_classifier_accuracy,
            "clip": model_identity(self.settings.clip),
            "min_detection_confidence": self.settings.min_detection_confidence,
        }

    def load(self) -> "Evaluator":
        """Load the models; see `Evaluator.from_settings`."""
        from hand1000.evaluation.evaluator import Evaluator

        return Evaluator.from_settings(self.settings)


def describe_resizer(size: int) -> str:
    """Return how images are resized for an extractor; only values of equal resizers are comparable."""
    return f"bicubic, antialiased, float, to {size}"


def read_foundation_size(kind: str, config: Mapping[str, Any]) -> int:
    """Return the side in pixels of the images of a foundation model with this configuration.

    Raises:
        Hand1000Error: The configuration states none.
    """
    vision = config.get("vision_config", config)
    size = vision.get("image_size", _FOUNDATION_SIZE) if isinstance(vision, Mapping) else None
    if not isinstance(size, int) or size < 1:
        raise Hand1000Error(f"a configuration of {kind}: image_size is {size!r:.40}, no number of pixels; restore it")
    # DINOv2 accepts any size. Its authors evaluate the model trained at 518 pixels at 224.
    return min(size, _FOUNDATION_SIZE) if kind == "dinov2" else size


def _identify_classifier(source: str) -> list[str]:
    """Return the digests of the shipped classifier's files, or that of the folder or the id of another one."""
    if source:
        return [model_identity(source)]
    return [digest_file(GESTURE_CLASSIFIER / name) for name in (WEIGHTS, "config.json")]


def _identify_extractor(settings: EvaluationSettings) -> list[str]:
    """Return the extractor's name, digest and resizer."""
    kind, _, source = settings.feature_extractor.partition(":")
    if settings.feature_extractor == "small":
        return [SMALL, digest_file(FEATURE_EXTRACTOR / WEIGHTS), describe_resizer(SMALL_SIZE)]
    if kind in FOUNDATION:
        config = check_config(fetch_model_folder(source) / "config.json")
        return [kind, model_identity(source), describe_resizer(read_foundation_size(kind, config))]
    return [INCEPTION, settings.feature_extractor_sha256, describe_resizer(INCEPTION_SIZE)]
