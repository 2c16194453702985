"""Settings of the workflow train_controlnet_on_depths, which trains the small ControlNet."""

from typing import Any

from pydantic import Field

from hand1000.config.base import Fraction, FrozenSettings, PalmConfidence, Seed
from hand1000.config.pretraining import TrainingSchedule


class ControlSettings(FrozenSettings):
    """The rendered images, which of them are used, and the schedule of the training."""

    seed: Seed
    images: int = Field(ge=1, le=1_000_000, description="Number of rendered hands in arbitrary poses.")
    gesture_images: int = Field(ge=0, le=10_000, description="Number of rendered hands per gesture, with its phrase.")
    max_tilt: float = Field(ge=0, le=180, description="Maximum tilt of the hands in degrees.")
    min_detection_confidence: PalmConfidence
    max_error: float = Field(gt=0, le=10, description="Maximum landmark error of a used image, in palm lengths.")
    caption_dropout: Fraction = Field(description="Share of images that are trained with the empty prompt.")
    hand_weight: float = Field(ge=1, le=100, description="Weight of the hand's box, which the map covers, in the loss.")
    schedule: TrainingSchedule

    def depth_key_fields(self) -> dict[str, Any]:
        """Return what the depth maps depend on."""
        return self.model_dump(include={"max_tilt", "max_error", "min_detection_confidence"})

    def training_key_fields(self) -> dict[str, Any]:
        """Return what the trained ControlNet depends on."""
        fields = self.model_dump(include={"seed", "caption_dropout", "hand_weight"})
        return fields | {"schedule": self.schedule.cache_key_fields()}
