"""Inputs of the workflow compare_methods: the methods, the seeds, the settings of all methods and those of each."""

from itertools import pairwise

from pydantic import Field

from hand1000.config.base import Fraction, FrozenSettings, LearningRate, Steps
from hand1000.config.sampler import Eta, GuidanceScale, InferenceSteps
from hand1000.config.settings import Settings
from hand1000.core.errors import Hand1000Error

METHODS = {
    "sd": "SD",
    "sd_tuned": "SD fine-tuned",
    "sd_imagic": "SD + Imagic",
    "sd_tuned_imagic": "SD fine-tuned + Imagic",
    "sd_handrefiner": "SD + HandRefiner",
    "hand1000": "Hand1000",
}
"""Display names of the methods, in the paper's order."""

SOURCE_METHOD = {"sd_imagic": "sd", "sd_tuned_imagic": "sd_tuned", "sd_handrefiner": "sd"}
"""The method whose images another method edits."""

TRAINED_METHODS = ("sd_tuned", "sd_tuned_imagic", "hand1000")
"""The methods whose images depend on a training; the others have the same images whatever its seed."""

_MAX_SEEDS, _MAX_SEED = 100, 2**31 - 1


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


def parse_methods(text: str) -> tuple[str, ...]:
    """Split a list such as `sd,sd_tuned,hand1000`; the result has the paper's order.

    Raises:
        Hand1000Error: A method is unknown or repeated.
    """
    names = _split("methods", text)
    for name in names:
        if name not in METHODS:
            raise Hand1000Error(f"methods: unknown method {name!r:.40}; choose of: {', '.join(METHODS)}")
    return tuple(name for name in METHODS if name in names)


def parse_seeds(text: str, num_images: int) -> tuple[int, ...]:
    """Split a list such as `3000,4000,5000`, the seeds of repeated trainings.

    The image number i of a training is drawn from the noise of seed + i. Seeds are therefore at least `num_images`
    apart, so that no two trainings draw from the same noise.

    Raises:
        Hand1000Error: A seed is no number from 0 to 2^31 - 1 or too near to another one, or there are more than 100.
    """
    if text.count(",") >= _MAX_SEEDS:
        raise Hand1000Error(f"seeds: {text.count(',') + 1} seeds; name at most {_MAX_SEEDS}")
    texts = _split("seeds", text)
    for seed in texts:
        if not (seed.isascii() and seed.isdecimal() and len(seed) <= 10 and int(seed) <= _MAX_SEED):
            raise Hand1000Error(f"seeds: {seed!r:.40} is no number from 0 to {_MAX_SEED}; write such as 3000,4000,5000")
    seeds = [int(seed) for seed in texts]
    for first, second in pairwise(sorted(seeds)):
        if second - first < num_images:
            raise Hand1000Error(
                f"seeds: {first} and {second} would draw some of their {num_images} images from the same noise; choose "
                f"seeds that are at least {num_images} apart, such as {first},{first + 1000 * -(-num_images // 1000)}"
            )
    return tuple(seeds)


def _split(name: str, text: str) -> list[str]:
    items = [item.strip() for item in text.split(",")]
    for item in items:
        if items.count(item) > 1:
            raise Hand1000Error(f"{name}: {item!r:.40} is repeated; name each once")
    return items
