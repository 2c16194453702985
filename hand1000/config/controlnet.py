"""The recipe of the small ControlNet."""

from typing import Any

from pydantic import Field

from hand1000.config.base import Fraction, FrozenSettings, Seed
from hand1000.config.pretraining import TrainingSchedule


class ControlSettings(FrozenSettings):
    """What is rendered, which of it is used, and how long the ControlNet is trained on it."""

    seed: Seed
    images: int = Field(ge=1, le=1_000_000, description="Rendered hands in arbitrary poses.")
    gesture_images: int = Field(ge=0, le=10_000, description="Rendered hands a gesture, captioned with the phrase.")
    max_tilt: float = Field(ge=0, le=180, description="Degrees; as the base model's recipe has it.")
    min_detection_confidence: Fraction
    max_error: float = Field(gt=0, le=10, description="Of the landmarks, in lengths of the palm; more is left out.")
    caption_dropout: Fraction
    hand_weight: float = Field(
        ge=1, le=100, description="Of the hand's box in the loss: the map tells of nothing else."
    )
    length: TrainingSchedule

    def depth_key_fields(self) -> dict[str, Any]:
        """Return what the depth maps depend on."""
        return self.model_dump(include={"max_tilt", "max_error", "min_detection_confidence"})

    def training_key_fields(self) -> dict[str, Any]:
        """Return what the trained ControlNet depends on."""
        fields = self.model_dump(include={"seed", "caption_dropout", "hand_weight"})
        return fields | {"schedule": self.length.cache_key_fields()}
