"""Settings of the workflow train_controlnet_on_depths, which trains the small ControlNet."""

from typing import Any

from pydantic import Field

from hand1000.config.base import PalmConfidence
from hand1000.config.pretraining import RenderedSettings, TrainingSchedule


class ControlSettings(RenderedSettings):
    """The rendered images, which of them are used, and the schedule of the training."""

    min_detection_confidence: PalmConfidence
    max_error: float = Field(gt=0, le=10, description="Maximum landmark error of a used image, in palm lengths.")
    hand_weight: float = Field(ge=1, le=100, description="Weight of the hand's box, which the map covers, in the loss.")
    schedule: TrainingSchedule

    def depth_key_fields(self) -> dict[str, Any]:
        """Return what the depth maps depend on."""
        return self.model_dump(include={"max_tilt", "max_error", "min_detection_confidence"})

    def training_key_fields(self) -> dict[str, Any]:
        """Return what the trained ControlNet depends on."""
        fields = self.model_dump(include={"seed", "caption_dropout", "hand_weight"})
        return fields | {"schedule": self.schedule.cache_key_fields()}
