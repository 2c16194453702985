"""Settings of the workflow train_controlnet_on_depths, which trains the small ControlNet."""

from typing import Any

from pydantic import Field

from hand1000.config.base import Fraction, FrozenSettings, Seed
from hand1000.config.pretraining import TrainingSchedule


class ControlSettings(FrozenSettings):
    """The rendered images, which of them are used, and the schedule of the training."""

    seed: Seed
    images: int = Field(ge=1, le=1_000_000, description="Number of rendered hands in arbitrary poses.")
    gesture_images: int = Field(
        ge=0, le=10_000, description="Number of rendered hands per gesture, captioned with its phrase."
    )
    max_tilt: float = Field(ge=0, le=180, description="Maximum tilt of the hands in degrees, as for the base model.")
    min_detection_confidence: Fraction = Field(description="Minimum confidence of MediaPipe's palm detection.")
    max_error: float = Field(
        gt=0, le=10, description="Maximum landmark error in palm lengths; images above it are left out."
    )
    caption_dropout: Fraction = Field(description="Share of images that are trained with the empty prompt.")
    hand_weight: float = Field(
        ge=1, le=100, description="Weight of the hand's box in the loss; the depth map covers nothing else."
    )
    length: TrainingSchedule

    def depth_key_fields(self) -> dict[str, Any]:
        """Return what the depth maps depend on."""
        return self.model_dump(include={"max_tilt", "max_error", "min_detection_confidence"})

    def training_key_fields(self) -> dict[str, Any]:
        """Return what the trained ControlNet depends on."""
        fields = self.model_dump(include={"seed", "caption_dropout", "hand_weight"})
        return fields | {"schedule": self.length.cache_key_fields()}
