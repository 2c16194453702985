"""The recipe of the small base model."""

from typing import Any

from pydantic import Field

from hand1000.config.base import Fraction, FrozenSettings, LearningRate, Seed


class TrainingSchedule(FrozenSettings):
    """How long and how fast one of the networks is trained."""

    steps: int = Field(ge=1, le=10_000_000)
    batch_size: int = Field(ge=1, le=4096)
    learning_rate: LearningRate
    warmup_steps: int = Field(ge=0, le=100_000)
    ema_decay: float = Field(ge=0, lt=1)
    checkpoint_every: int = Field(ge=1, le=100_000)

    def cache_key_fields(self) -> dict[str, Any]:
        """What decides the result: how often the state is saved does not."""
        return self.model_dump(exclude={"checkpoint_every"})


class PretrainSettings(FrozenSettings):
    """What is rendered, and how long the three networks are trained on it."""

    seed: Seed
    images: int = Field(ge=100, le=1_000_000, description="Rendered hands in arbitrary poses.")
    gesture_images: int = Field(ge=0, le=10_000, description="Rendered hands a gesture, captioned with the phrase.")
    max_tilt: float = Field(
        ge=0, le=180, description="Degrees that a hand may be tilted for the UNet to see it; the autoencoder sees all."
    )
    caption_dropout: Fraction
    autoencoder: TrainingSchedule
    text_encoder: TrainingSchedule
    base: TrainingSchedule

    def autoencoder_key_fields(self) -> dict[str, Any]:
        """What the autoencoder depends on."""
        return {"seed": self.seed, "schedule": self.autoencoder.cache_key_fields()}

    def text_encoder_key_fields(self) -> dict[str, Any]:
        """What the text encoder depends on."""
        return {"seed": self.seed, "max_tilt": self.max_tilt, "schedule": self.text_encoder.cache_key_fields()}

    def base_key_fields(self) -> dict[str, Any]:
        """What the UNet depends on."""
        fields = self.model_dump(include={"seed", "max_tilt", "caption_dropout"})
        return fields | {"schedule": self.base.cache_key_fields()}
