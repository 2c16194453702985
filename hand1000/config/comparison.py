"""What a comparison may be told besides the settings of the models in it; complete and bounded, as `settings` is."""

from typing import Annotated

from pydantic import Field

from hand1000.config.base import Fraction, FrozenSettings, LearningRate, Steps
from hand1000.config.settings import Settings
from hand1000.config.sweep import with_overrides


class ImagicSettings(FrozenSettings):
    """Imagic (Kawar et al., 2023), once for each picture."""

    embedding_steps: Steps = Field(description="Of the text's embedding, towards the picture; the paper's are 500.")
    embedding_learning_rate: LearningRate
    unet_steps: Steps = Field(description="Of a UNet for this picture alone; the paper's are 1,000.")
    unet_learning_rate: LearningRate
    target_weight: Annotated[float, Field(ge=0, le=2)] = Field(
        description="Of the text's embedding against the optimised one when the picture is drawn anew; the paper's eta."
    )
    guidance_scale: float = Field(ge=1, le=50)
    eta: Fraction = Field(description="Fresh noise in each of the sampler's steps.")
    num_inference_steps: int = Field(ge=1, le=1000)


class HandRefinerSettings(FrozenSettings):
    """HandRefiner (Lu et al., 2023), once for each picture with a hand."""

    controlnet: str = Field(
        min_length=1, description="Of depth maps, for the inpainting model: a folder, s3:// or a pinned hub id."
    )
    inpainting_model: str = Field(
        description='What paints, such as a Stable Diffusion with nine input channels; "" is the base model.'
    )
    min_detection_confidence: Fraction = Field(description="Of the hands to be mended; the paper's is 0.6.")
    control_strength: Annotated[float, Field(ge=0, le=2)] = Field(
        description="What the ControlNet's say is multiplied with; the paper's is 0.55."
    )
    control_guidance: Annotated[float, Field(ge=1, le=10)] = Field(
        description="What the depth map changes in each prediction is taken this many times; 1 is the paper's way."
    )
    adaptive: bool = Field(description="Find the least strength, 0.4 to 0.9, that keeps the landmarks, as they do.")
    denoising_strength: Annotated[float, Field(gt=0, le=1)] = Field(
        description="1 paints the hand anew from noise; less keeps some of what was there."
    )
    guidance_scale: float = Field(ge=1, le=50)
    eta: Fraction = Field(description="Fresh noise in each of the sampler's steps.")
    num_inference_steps: int = Field(ge=1, le=1000)


class ComparisonSettings(FrozenSettings):
    """The settings of all systems: what they have in common, and those of each method."""

    common: Settings
    imagic: ImagicSettings
    hand_refiner: HandRefinerSettings


def plain_finetuning(settings: Settings) -> Settings:
    """Fine-tuning as people do it: the same images, captions and steps, but nothing of the hands.

    The conditioning h is the text embedding e.
    """
    return with_overrides(
        settings,
        {
            "stage1.pose_components": 0,
            "stage2.fusion": "per_token",
            "stage2.lambda_": 1.0,
            "stage2.fusion_steps": 0,
            "stage2.embedding_steps": 0,
            "generation.mu": 1.0,
        },
    )
