"""Settings of the workflow pretrain_base, which trains the small base model."""

from typing import Annotated, Any

from pydantic import Field

from hand1000.config.base import CheckpointEvery, Fraction, FrozenSettings, LearningRate, Seed

Channels = Annotated[int, Field(ge=16, le=2048, multiple_of=16)]


class TrainingSchedule(FrozenSettings):
    """Length and learning rate of one network's training."""

    steps: int = Field(ge=1, le=10_000_000, description="Number of optimizer steps.")
    batch_size: int = Field(ge=1, le=4096, description="Number of images in a step.")
    learning_rate: LearningRate = Field(description="Peak learning rate.")
    warmup_steps: int = Field(ge=0, le=100_000, description="Steps in which the learning rate rises to its peak.")
    ema_decay: float = Field(ge=0, lt=1, description="Decay of the exponential moving average of the weights.")
    checkpoint_every: CheckpointEvery

    def cache_key_fields(self) -> dict[str, Any]:
        """Return the fields on which the result depends."""
        return self.model_dump(exclude={"checkpoint_every"})


class RenderedSettings(FrozenSettings):
    """The rendered images of a training from scratch."""

    seed: Seed
    images: int = Field(ge=1, le=1_000_000, description="Number of rendered hands in arbitrary poses.")
    gesture_images: int = Field(ge=0, le=10_000, description="Number of rendered hands per gesture, with its phrase.")
    max_tilt: float = Field(ge=0, le=180, description="Maximum tilt in degrees of the hands that are trained on.")
    caption_dropout: Fraction = Field(description="Share of images that are trained with the empty prompt.")


class PretrainSettings(RenderedSettings):
    """The rendered images, and the schedules of the three networks; the autoencoder is trained on hands of any tilt."""

    images: int = Field(ge=100, le=1_000_000, description="Number of rendered hands in arbitrary poses.")
    image_size: int = Field(64, ge=64, le=512, multiple_of=32, description="Side of the images in pixels.")
    unet_channels: tuple[Channels, Channels, Channels] = Field(
        (64, 96, 128), description="Channels of the UNet at its three resolutions."
    )
    unet_layers: int = Field(1, ge=1, le=4, description="Residual blocks of the UNet at each resolution.")
    autoencoder: TrainingSchedule
    text_encoder: TrainingSchedule
    base: TrainingSchedule

    def autoencoder_key_fields(self) -> dict[str, Any]:
        """What the autoencoder depends on; the size of the images is in the images themselves."""
        return {"seed": self.seed, "schedule": self.autoencoder.cache_key_fields()}

    def text_encoder_key_fields(self) -> dict[str, Any]:
        """What the text encoder depends on."""
        return {"seed": self.seed, "max_tilt": self.max_tilt, "schedule": self.text_encoder.cache_key_fields()}

    def base_key_fields(self) -> dict[str, Any]:
        """What the UNet depends on."""
        fields = self.model_dump(include={"seed", "max_tilt", "caption_dropout", "unet_channels", "unet_layers"})
        return fields | {"schedule": self.base.cache_key_fields()}
