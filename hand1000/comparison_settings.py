"""What a comparison may be told besides the settings of the models in it; complete and bounded, as `settings` is."""

from typing import Annotated

from pydantic import Field

from hand1000.settings import BoundedSettings, Fraction, LearningRate, Settings, Steps
from hand1000.sweep_settings import changed


class ImagicSettings(BoundedSettings):
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


class ComparisonSettings(BoundedSettings):
    """The settings of all systems: what they have in common, and those of each method."""

    common: Settings
    imagic: ImagicSettings


def without_fusion(settings: Settings) -> Settings:
    """Fine-tuning on the same images and captions by the same steps, but with nothing of the gesture's hands: h = e."""
    return changed(
        settings,
        {
            "stage2.fusion": "per_token",
            "stage2.lambda_": 1.0,
            "stage2.fusion_steps": 0,
            "stage2.refine_steps": 0,
            "generation.mu": 1.0,
        },
    )
