"""Settings of a training run.

A preset states every field, or a preset it inherits from and what differs (`hand1000/config/presets/`). No field has a
default in code, so a resolved file is the complete description of a run.
"""

import operator
from collections.abc import Collection, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from hand1000.config.base import (
    BatchSize,
    CheckpointEvery,
    Fraction,
    FrozenSettings,
    LearningRate,
    PalmConfidence,
    Seed,
    Steps,
    validate_settings,
)
from hand1000.config.caption_settings import CaptionSettings
from hand1000.config.data_settings import DataSettings
from hand1000.config.gates import GateSettings
from hand1000.config.inheritance import PRESETS, list_presets, resolve_preset
from hand1000.config.sampler import SamplerSettings
from hand1000.core.documents import read_yaml
from hand1000.core.errors import Hand1000Error


class Stage1Settings(FrozenSettings):
    """Stage I: the mean gesture feature (paper, section 3.2)."""

    feature: Literal["normalized", "raw", "none"] = Field(
        description="normalized: wrist-relative, scaled, left hands mirrored; raw: the authors' x, y, z; none: zeros."
    )
    min_detection_confidence: PalmConfidence
    max_missed: Fraction = Field(description="Share of images without a detected hand above which the run stops.")
    pose_components: int = Field(
        ge=0, le=63, description="Number of components that describe each image's own hand in Stage II; 0 is none."
    )


class Stage2Settings(FrozenSettings):
    """Stage II: the fusion and the optimized embeddings (paper, section 3.3)."""

    lambda_: Fraction = Field(description="Weight of the text embedding in h = lambda*e + (1-lambda)*g.")
    fusion: Literal["per_token", "low_rank", "flat"] = Field(
        description="per_token: one trained layer for every token; low_rank: the same of rank `fusion_rank` and "
        "without a constant term, which a LoRA of any base model holds; flat: the authors' random layer of all tokens."
    )
    fusion_rank: int = Field(ge=1, le=1024, description="Rank of the low-rank fusion.")
    fusion_steps: Steps = Field(description="Training steps of the fusion; 0 keeps its initialization.")
    fusion_batch_size: BatchSize = Field(description="Number of images in a training step of the fusion.")
    fusion_learning_rate: LearningRate
    embedding_steps: Steps = Field(description="Optimization steps of each embedding; 0 keeps the fusion's output.")
    embedding_batch_size: BatchSize = Field(description="Number of embeddings that are optimized at a time.")
    embedding_learning_rate: LearningRate
    paper_loop: bool = Field(
        description="Use the authors' loop, which optimizes an embedding and fine-tunes on its image before the next "
        "image, with a new optimizer and the same noise for each; stage3.steps are then steps per image."
    )
    checkpoint_every: CheckpointEvery

    def fusion_key_fields(self) -> dict[str, Any]:
        """Return what the trained fusion depends on."""
        names = {"lambda_", "fusion", "fusion_steps", "fusion_batch_size", "fusion_learning_rate"}
        return self.model_dump(include=names | ({"fusion_rank"} if self.fusion == "low_rank" else set()))

    def embedding_key_fields(self) -> dict[str, Any]:
        """Return what the optimized embeddings depend on, besides the fusion."""
        return self.unet_key_fields() | {"embedding_batch_size": self.embedding_batch_size}

    def unet_key_fields(self) -> dict[str, Any]:
        """Return what Stage III reads of Stage II's settings."""
        return self.model_dump(include={"lambda_", "paper_loop", "embedding_steps", "embedding_learning_rate"})

    @model_validator(mode="after")
    def _flat_is_never_trained(self) -> Self:
        if self.fusion == "flat" and self.fusion_steps:
            raise ValueError("fusion_steps: the flat fusion is never trained; choose 0")
        return self

    def check_gestures(self, gestures: Collection[str]) -> None:
        """Check that a fusion of this kind can hold the gestures.

        Raises:
            Hand1000Error: The flat fusion is asked to hold several.
        """
        if self.fusion == "flat" and len(gestures) > 1:
            raise Hand1000Error(
                f"stage2.fusion: flat holds one gesture, not {', '.join(gestures)}; choose per_token, or name one"
            )


class ComputeSettings(FrozenSettings):
    """Precision, kernels and memory of the UNet in training; all but `precision` change results by rounding only."""

    precision: Literal["fp32", "bf16", "fp16"] = Field(
        description="Precision of the computation and of frozen weights; trained weights stay in fp32."
    )
    attention: Literal["sdpa", "eager"] = Field(description="PyTorch's fused attention, or plain matrix products.")
    gradient_checkpointing: bool = Field(description="Save memory for about a third more computation.")
    channels_last: bool = Field(description="Store the UNet's tensors in channels-last memory format.")
    compile: bool = Field(description="Use torch.compile: minutes at the start for faster steps afterwards.")
    cuda_graphs: bool = Field(
        description="On a GPU, record a step once and replay it, except in fp16; without one it changes nothing."
    )

    def cache_key_fields(self) -> dict[str, Any]:
        """Return what the result depends on beyond rounding."""
        return self.model_dump(include={"precision"})


class LoraSettings(FrozenSettings):
    """The adapters of `stage3.training_mode: lora` (Hu et al., 2021)."""

    rank: int = Field(ge=1, le=1024, description="Rank of the adapters' matrices.")
    alpha: int = Field(ge=1, le=4096, description="An adapter's output is multiplied by alpha / rank.")
    targets: list[Annotated[str, Field(min_length=1)]] = Field(
        min_length=1, max_length=100, description="Layers that get an adapter, by the ends of their names in the UNet."
    )


class PriorSettings(FrozenSettings):
    """Prior preservation: training on images of the base model beside the gesture's (Ruiz et al., 2022)."""

    images: int = Field(ge=0, le=100_000, description="Number of class images, without the gesture's phrase; 0 is off.")
    batch_size: BatchSize = Field(description="Number of class images in a step, in addition to the gesture's batch.")
    weight: float = Field(ge=0, le=100, description="Weight of the class images' loss against the gesture's.")


class ValidationSettings(FrozenSettings):
    """Validation during Stage III."""

    images: int = Field(
        ge=0, le=10_000, description="Number of training images held out, with all images of their people; 0 is off."
    )
    every: int = Field(ge=1, le=1_000_000, description="Number of steps between two validations.")
    images_drawn: int = Field(ge=0, le=64, description="Number of images to generate at each, from the same noise.")
    patience: int = Field(
        ge=0, le=1000, description="Validations without a lower loss until training stops early; 0 is never."
    )

    @model_validator(mode="after")
    def _needs_images(self) -> Self:
        if not self.images and (self.images_drawn or self.patience):
            raise ValueError("images: images_drawn and patience need validation images; choose more than 0")
        return self


class Stage3Settings(FrozenSettings):
    """Stage III: fine-tuning of the UNet on the frozen embeddings (paper, section 3.4)."""

    training_mode: Literal["full", "lora"] = Field(description="full trains all weights, lora low-rank adapters.")
    lora: LoraSettings
    steps: Steps = Field(description="Number of optimizer steps.")
    batch_size: BatchSize = Field(description="Number of images in a step, over all processes.")
    micro_batch_size: BatchSize = Field(
        description="Number of images computed at once, halved if a GPU runs out of memory."
    )
    optimizer: Literal["adamw", "adamw_8bit"] = Field(description="adamw_8bit needs a GPU and bitsandbytes.")
    learning_rate: LearningRate = Field(description="Peak learning rate.")
    warmup_steps: Steps = Field(description="Number of steps in which the learning rate rises linearly to its peak.")
    lr_scheduler: Literal["constant", "cosine"] = Field(description="Course of the learning rate after the warm-up.")
    timestep_sampling: Literal["uniform", "logit_normal"] = Field(
        description="Distribution of training timesteps: uniform as in the paper, or mostly intermediate ones."
    )
    min_snr_gamma: float = Field(ge=0, le=1000, description="Gamma of the min-SNR loss weights; 0 weights equally.")
    weight_decay: Fraction
    max_grad_norm: float = Field(gt=0, le=1000, description="Norm to which larger gradients are clipped.")
    caption_dropout: Fraction = Field(description="Share of images that are trained with the fused null embedding.")
    ema_decay: Fraction = Field(description="Decay of the weights' moving average, which is saved; 0 saves the last.")
    prior: PriorSettings
    validation: ValidationSettings
    checkpoint_every: CheckpointEvery

    def cache_key_fields(self) -> dict[str, Any]:
        """Return the fields on which the result depends beyond rounding; the others may change during a training."""
        fields = self.model_dump(exclude={"checkpoint_every", "micro_batch_size"})
        unused = {
            "lora": self.training_mode == "full",
            "prior": not self.prior.images,
            "validation": not self.validation.images,
        }
        return {name: value for name, value in fields.items() if not unused.get(name)}


class GenerationSettings(SamplerSettings):
    """Generation of the images that are evaluated; the sampler's settings become the model's defaults."""

    batch_size: BatchSize = Field(description="Number of images that are generated at a time.")
    num_images: int = Field(ge=2, le=100_000, description="Number of images per gesture and model to evaluate.")

    def sampler_defaults(self) -> dict[str, Any]:
        """Return the sampler's settings, which a model uses where a call does not override them."""
        return self.model_dump(include=set(SamplerSettings.model_fields))

    def base_model_variant(self) -> Self:
        """Return the settings for a model without fusion and autoguidance, with the unused fields at neutral values."""
        unused = {"mu": 1.0, "autoguidance_scale": 1.0, "autoguidance_interval": [0.0, 1.0], "fuse_null_prompt": False}
        return self.model_copy(update=unused)


class EvaluationSettings(FrozenSettings):
    """Evaluation of the generated images."""

    feature_extractor: str = Field(
        min_length=1,
        description="Network of FID and KID: small, which ships; dinov2:SOURCE or clip:SOURCE with a folder, s3:// or "
        "hub id@revision; or the path or URL of the 2015 Inception as TorchScript.",
    )
    feature_extractor_sha256: str = Field(
        pattern="^([0-9a-f]{64})?$", description="Expected SHA-256 of the extractor's file; '' accepts any."
    )
    clip: str = Field(description="Folder, s3:// or hub id@revision of CLIP for the CLIP score; '' skips the score.")
    min_detection_confidence: PalmConfidence
    gesture_classifier: str = Field(
        description="Folder, s3:// or hub id@revision of what `hand1000 classifier train` wrote; '' is the shipped one."
    )
    min_classifier_accuracy: Fraction = Field(
        description="Accuracy of the classifier on the real test images of a gesture, below which the evaluation "
        "concludes nothing about the gesture."
    )
    general_images: int = Field(
        ge=0,
        le=10_000,
        description="Number of images per model of prompts without a gesture, to detect forgetting; 0 is off.",
    )
    other_gesture_images: int = Field(
        ge=0,
        le=10_000,
        description="Number of images per model of prompts that name gestures which were not trained; 0 is off.",
    )
    export_images: int = Field(
        ge=0,
        le=100_000,
        description="Number of test prompts that are generated as an export generates them, if that differs; 0 is off.",
    )

    @field_validator("general_images", "other_gesture_images", "export_images")
    @classmethod
    def _one_has_no_distance(cls, count: int) -> int:
        if count == 1:
            raise ValueError("a distance needs two images; choose 0 or at least 2")
        return count


class Settings(FrozenSettings):
    """Everything that decides a run's result besides its data and its base model."""

    seed: Seed
    data: DataSettings
    captions: CaptionSettings
    stage1: Stage1Settings
    stage2: Stage2Settings
    stage3: Stage3Settings
    compute: ComputeSettings
    generation: GenerationSettings
    evaluation: EvaluationSettings
    gates: GateSettings

    @model_validator(mode="before")
    @classmethod
    def _inherit_preset(cls, values: Any) -> Any:
        return resolve_preset(values)

    @model_validator(mode="after")
    def _flat_takes_no_poses(self) -> Self:
        if self.stage2.fusion == "flat" and self.stage1.pose_components:
            raise ValueError("stage1.pose_components: the flat fusion takes no poses; choose 0")
        return self

    @model_validator(mode="after")
    def _paper_loop_is_possible(self) -> Self:
        if self.stage2.paper_loop:
            for name, required in PAPER_LOOP_REQUIREMENTS.items():
                value = operator.attrgetter(name)(self)
                if value != required:
                    raise ValueError(f"stage2.paper_loop requires {name}: {required} (got {value})")
        return self

    def recipe(self) -> dict[str, Any]:
        """Return the fields that decide the model and its metrics: all but the gates, which only judge it."""
        return self.model_dump(mode="json", exclude={"gates"})

    def class_images_key_fields(self) -> dict[str, Any]:
        """Return what the base model's images for prior preservation depend on; without such images it is nothing."""
        count = self.stage3.prior.images
        fields = {"images": count, "seed": self.seed, "generation": self.generation.base_model_variant()}
        return fields if count else {}

    def unet_key_fields(self) -> dict[str, Any]:
        """Return what Stage III depends on; the sampler decides only the images of the validation."""
        return {
            "seed": self.seed,
            "stage2": self.stage2.unet_key_fields(),
            "stage3": self.stage3.cache_key_fields(),
            "compute": self.compute.cache_key_fields(),
            "generation": self.generation.sampler_defaults() if self.stage3.validation.images_drawn else None,
        }

    def model_key_fields(self) -> dict[str, Any]:
        """Return what the assembled model depends on, besides its weights."""
        return {"lora": self.stage3.cache_key_fields().get("lora"), "generation": self.generation.sampler_defaults()}

    def with_overrides(self, changes: Mapping[str, Any]) -> Self:
        """Return a copy in which some fields differ.

        Args:
            changes: New values by dotted name, such as `stage2.lambda_`.

        Raises:
            Hand1000Error: There is no such field, or a value is out of range.
        """
        values = self.model_dump()
        for name, value in changes.items():
            *path, last = name.split(".")
            section: Any = values
            for part in path:
                section = section.get(part) if isinstance(section, dict) else None
            if not isinstance(section, dict) or last not in section:
                raise Hand1000Error(f"{name}: no such setting; `hand1000 config show default` lists them")
            section[last] = deepcopy(value)  # A later name may lie inside of it.
        return validate_settings(type(self), values, ", ".join(changes))


PAPER_LOOP_REQUIREMENTS = {
    "compute.precision": "fp32",
    "stage3.training_mode": "full",
    "stage3.optimizer": "adamw",
    "stage3.min_snr_gamma": 0,
    "stage3.prior.images": 0,
    "stage3.validation.images": 0,
    "stage3.batch_size": 1,
    "stage3.warmup_steps": 0,
    "stage3.lr_scheduler": "constant",
    "stage3.timestep_sampling": "uniform",
    "stage3.caption_dropout": 0,
    "stage3.ema_decay": 0,
}
"""What the authors' loop can do: the only value of each of these fields that goes with `stage2.paper_loop`."""


def load_settings(source: str | Path) -> Settings:
    """Load settings from a preset or from a YAML file.

    Args:
        source: Name of a preset, or path of a file.

    Raises:
        Hand1000Error: There is no such preset or file, or a field is missing, unknown or out of range.
    """
    presets = list_presets()
    path = PRESETS / f"{source}.yaml" if str(source) in presets else Path(source)
    if not path.is_file():
        raise Hand1000Error(f"{source}: neither a preset ({', '.join(presets)}) nor a file")
    return validate_settings(Settings, read_yaml(path), path)
