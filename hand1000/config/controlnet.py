"""The recipe of the small ControlNet."""

from pydantic import BaseModel, ConfigDict, Field

from hand1000.config.pretraining import TrainingSchedule


class ControlSettings(BaseModel):
    """What is rendered, which of it is used, and how long the ControlNet is trained on it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(ge=0, le=2**31 - 1)
    images: int = Field(ge=1, le=1_000_000, description="Rendered hands in arbitrary poses.")
    gesture_images: int = Field(ge=0, le=10_000, description="Rendered hands a gesture, captioned with the phrase.")
    max_tilt: float = Field(ge=0, le=180, description="Degrees; as the base model's recipe has it.")
    min_detection_confidence: float = Field(ge=0, le=1)
    max_error: float = Field(gt=0, le=10, description="Of the landmarks, in lengths of the palm; more is left out.")
    caption_dropout: float = Field(ge=0, le=1)
    hand_weight: float = Field(
        ge=1, le=100, description="Of the hand's box in the loss: the map tells of nothing else."
    )
    length: TrainingSchedule
