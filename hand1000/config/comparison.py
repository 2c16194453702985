"""Settings of the workflow compare_methods: the settings of all methods and those of each."""

from pydantic import Field

from hand1000.config.base import Fraction, FrozenSettings, LearningRate, Steps
from hand1000.config.sampler import Eta, GuidanceScale, InferenceSteps
from hand1000.config.settings import Settings


class ImagicSettings(FrozenSettings):
    """Imagic (Kawar et al., 2023), applied to each image by itself."""

    embedding_steps: Steps = Field(description="Optimization steps of the text embedding; 500 in the paper.")
    embedding_learning_rate: LearningRate
    unet_steps: Steps = Field(description="Steps that fine-tune a UNet on this image alone; 1,000 in the paper.")
    unet_learning_rate: LearningRate
    target_weight: float = Field(ge=0, le=2, description="Weight of the target text's embedding; eta in the paper.")
    guidance_scale: GuidanceScale
    eta: Eta
    num_inference_steps: InferenceSteps


class HandRefinerSettings(FrozenSettings):
    """HandRefiner (Lu et al., 2023), applied to each image with a hand."""

    controlnet: str = Field(min_length=1, description="ControlNet of depth maps: a folder, s3:// or hub id@revision.")
    inpainting_model: str = Field(description="Inpainting model, such as one with nine inputs; '' is the base model.")
    min_detection_confidence: Fraction = Field(description="Minimum confidence in a hand to repair; 0.6 in the paper.")
    control_strength: float = Field(ge=0, le=2, description="Factor of the residuals; 0.55 in the paper.")
    control_guidance: float = Field(ge=1, le=10, description="Scale of guidance by the depth map; 1 as in the paper.")
    adaptive: bool = Field(description="Choose the lowest strength of 0.4 to 0.9 that keeps the landmarks.")
    denoising_strength: float = Field(gt=0, le=1, description="Strength of the inpainting; 1 starts from noise.")
    guidance_scale: GuidanceScale
    eta: Eta
    num_inference_steps: InferenceSteps


class ComparisonSettings(FrozenSettings):
    """The settings that all methods have in common, and those of each baseline."""

    common: Settings
    imagic: ImagicSettings
    hand_refiner: HandRefinerSettings


def plain_finetuning(settings: Settings) -> Settings:
    """Return the settings of ordinary fine-tuning: the same images, captions and steps, but nothing of the hands.

    The conditioning h is the text embedding e.
    """
    return settings.with_overrides(
        {
            "stage1.pose_components": 0,
            "stage2.fusion": "per_token",
            "stage2.lambda_": 1.0,
            "stage2.fusion_steps": 0,
            "stage2.embedding_steps": 0,
            "generation.mu": 1.0,
        }
    )
