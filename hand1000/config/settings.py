"""What a run may be told, complete and bounded.

A preset is a YAML file that states every field (`hand1000/config/presets/`); nothing has a default in code, so that
what a file says is all there is. `extra="forbid"` and the bounds turn a slip into an error that names the field.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from hand1000.config.base import BatchSize, Fraction, FrozenSettings, LearningRate, Seed, Steps, format_validation_error
from hand1000.config.caption_settings import CaptionSettings
from hand1000.config.data_settings import DataSettings
from hand1000.core.errors import Hand1000Error, one_line

PRESETS = Path(__file__).parent / "presets"


class Stage1Settings(FrozenSettings):
    """Stage I: the mean gesture feature (paper, section 3.2)."""

    feature: Literal["normalized", "raw", "none"] = Field(
        description="normalized: wrist-centred, scale-normalised, left hands mirrored; raw: the authors' x, y, z; "
        "none: nothing of the hands, to see what they are worth."
    )
    min_detection_confidence: Fraction
    max_missed: Fraction = Field(description="Share of images without a hand above which the run stops.")
    pose_components: int = Field(
        ge=0, le=63, description="In how many numbers Stage II is told each image's own hand; 0: only the mean one."
    )


class Stage2Settings(FrozenSettings):
    """Stage II: the fusion and the optimised embeddings (paper, section 3.3)."""

    lambda_: Fraction = Field(description="Weight of the text embedding in h = lambda*e + (1-lambda)*g.")
    fusion: Literal["per_token", "flat"] = Field(
        description="per_token: one small layer for every token; flat: the authors', over all tokens at once, random."
    )
    fusion_steps: Steps = Field(description="Steps of the fusion layer over all images; 0 keeps it as it starts.")
    fusion_batch_size: BatchSize
    fusion_learning_rate: LearningRate
    embedding_steps: Steps = Field(description="Steps of each image's own embedding; 0 keeps where the layer puts it.")
    embedding_batch_size: BatchSize
    embedding_learning_rate: LearningRate
    paper_loop: bool = Field(
        description="The authors' loop: each image is refined, then trained on, before the next, with new optimisers "
        "and equal draws for every image; stage3.steps are those of one image."
    )
    checkpoint_every: int = Field(ge=1, le=100_000, description="Steps between two saved states.")

    @model_validator(mode="after")
    def _flat_is_never_trained(self) -> Self:
        if self.fusion == "flat" and self.fusion_steps:
            raise ValueError("fusion_steps: the flat fusion is never trained; choose 0")
        return self

    def fusion_key_fields(self) -> dict[str, Any]:
        """Return what the trained fusion depends on."""
        return self.model_dump(
            include={"lambda_", "fusion", "fusion_steps", "fusion_batch_size", "fusion_learning_rate"}
        )

    def embedding_key_fields(self) -> dict[str, Any]:
        """Return what the optimized embeddings depend on, besides the fusion."""
        return self.unet_key_fields() | {"embedding_batch_size": self.embedding_batch_size}

    def unet_key_fields(self) -> dict[str, Any]:
        """Return what Stage III reads of Stage II's settings."""
        return self.model_dump(include={"lambda_", "paper_loop", "embedding_steps", "embedding_learning_rate"})

    def check_gestures(self, gestures: Collection[str]) -> None:
        """Ask whether a fusion of this kind can hold them.

        Raises:
            Hand1000Error: several for the flat one.
        """
        if self.fusion == "flat" and len(gestures) > 1:
            raise Hand1000Error(
                f"stage2.fusion: flat holds one gesture, not {', '.join(gestures)}; choose per_token, or name one"
            )


class ComputeSettings(FrozenSettings):
    """How the UNet is computed while it is trained, or trained through; only `precision` is more than rounding."""

    precision: Literal["fp32", "bf16", "fp16"] = Field(
        description="Of the arithmetic, and of weights that are not trained; trained ones are kept in fp32."
    )
    attention: Literal["sdpa", "eager"] = Field(description="PyTorch's fused kernels, or the plain products.")
    gradient_checkpointing: bool = Field(description="Less memory for a third more computing.")
    channels_last: bool
    compile: bool = Field(description="torch.compile: minutes at the start for faster steps after it.")

    def cache_key_fields(self) -> dict[str, Any]:
        """What the result depends on, to rounding."""
        return self.model_dump(include={"precision"})


class LoraSettings(FrozenSettings):
    """The adapters of `stage3.training_mode: lora` (Hu et al., 2021)."""

    rank: int = Field(ge=1, le=1024)
    alpha: int = Field(ge=1, le=4096, description="An adapter's output is multiplied by alpha / rank.")
    targets: list[Annotated[str, Field(min_length=1)]] = Field(
        min_length=1, max_length=100, description="Layers that get one, by the ends of their names in the UNet."
    )


class PriorSettings(FrozenSettings):
    """Prior preservation: the base model's own pictures, trained on beside the gesture's (Ruiz et al., 2022)."""

    images: int = Field(ge=0, le=100_000, description="Pictures of captions without the gesture's phrase; 0 is none.")
    batch_size: BatchSize = Field(description="Of them in each step, beside the gesture's batch.")
    weight: float = Field(ge=0, le=100, description="Of their loss against the gesture's.")


class ValidationSettings(FrozenSettings):
    """What is looked at while Stage III trains."""

    images: int = Field(
        ge=0, le=10_000, description="Training images that are held back, with all of their people; 0 looks at nothing."
    )
    every: int = Field(ge=1, le=1_000_000, description="Steps from one look to the next.")
    images_drawn: int = Field(ge=0, le=64, description="Pictures drawn at each, from the same prompts and noise.")
    patience: int = Field(
        ge=0, le=1000, description="Looks without a lower loss after which training ends; the best weights are kept."
    )

    @model_validator(mode="after")
    def _needs_images(self) -> Self:
        if not self.images and (self.images_drawn or self.patience):
            raise ValueError("images: images_drawn and patience need images that are held back; choose more than 0")
        return self


class Stage3Settings(FrozenSettings):
    """Stage III: fine-tuning of the UNet on the frozen embeddings (paper, section 3.4)."""

    training_mode: Literal["full", "lora"] = Field(
        description="full trains all weights, as in the paper; lora trains low-rank adapters beside them."
    )
    lora: LoraSettings
    steps: Steps
    batch_size: BatchSize = Field(description="Images of a step, over all processes.")
    micro_batch_size: BatchSize = Field(description="Computed at once by a process; gradients add up to the batch's.")
    optimizer: Literal["adamw", "adamw_8bit"] = Field(description="adamw_8bit: bitsandbytes, on a GPU.")
    learning_rate: LearningRate
    warmup_steps: Steps
    lr_scheduler: Literal["constant", "cosine"] = Field(description="After the warm-up; see docs/method.md.")
    timestep_sampling: Literal["uniform", "logit_normal"] = Field(
        description="uniform as in the paper, or most where a picture's shapes are decided."
    )
    min_snr_gamma: float = Field(
        ge=0,
        le=1000,
        description="Bound of the signal-to-noise ratio that weighs a timestep; 0 weighs all alike.",
    )
    weight_decay: Fraction
    max_grad_norm: float = Field(gt=0, le=1000)
    caption_dropout: Fraction = Field(description="Share of images trained with the fused empty prompt.")
    ema_decay: Fraction = Field(description="Decay of the averaged weights that are kept; 0 keeps the last ones.")
    prior: PriorSettings
    validation: ValidationSettings
    checkpoint_every: int = Field(ge=1, le=100_000)

    def cache_key_fields(self) -> dict[str, Any]:
        """What the result depends on, to rounding; the rest may change in the midst of a training."""
        found = self.model_dump(exclude={"checkpoint_every", "micro_batch_size"})
        if self.training_mode == "full":
            del found["lora"]
        if not self.prior.images:
            del found["prior"]
        if not self.validation.images:
            del found["validation"]
        return found


class GenerationSettings(FrozenSettings):
    """How pictures are drawn, for the measurement and as the model's defaults."""

    mu: Fraction = Field(description="Weight of the text embedding at inference; need not equal lambda.")
    guidance_scale: float = Field(ge=1, le=50)
    autoguidance_scale: float = Field(
        ge=1, le=10, description="How far beyond the base model's prediction, towards the tuned one's; 1 is none."
    )
    autoguidance_interval: Annotated[list[Fraction], Field(min_length=2, max_length=2)] = Field(
        description="From where to where in the noise schedule, 0 the clean end, the base model guides."
    )
    fuse_null_prompt: bool = Field(description="Whether guidance leads away from the fused empty prompt or the plain.")
    eta: Fraction = Field(description="Fresh noise in each of the sampler's steps: 0 none (DDIM), 1 as in DDPM.")
    num_inference_steps: int = Field(ge=1, le=1000)
    batch_size: BatchSize
    num_images: int = Field(ge=2, le=100_000, description="Pictures a model draws of each gesture for the measurement.")

    @model_validator(mode="after")
    def _interval_is_one(self) -> Self:
        low, high = self.autoguidance_interval
        if low >= high:
            raise ValueError(f"autoguidance_interval: {low} is not below {high}; give the lower end first")
        return self

    def sampler_defaults(self) -> dict[str, Any]:
        """What a model draws with when a call does not say."""
        return self.model_dump(exclude={"batch_size", "num_images"})

    def base_model_variant(self) -> Self:
        """What decides the pictures of a model without a fusion and a guide; the rest is as if there were none."""
        unused = {"mu": 1.0, "autoguidance_scale": 1.0, "autoguidance_interval": [0.0, 1.0], "fuse_null_prompt": False}
        return self.model_copy(update=unused)


class EvaluationSettings(FrozenSettings):
    """How the pictures are measured."""

    feature_extractor: str = Field(
        description="'small' is the one that ships; 'dinov2:' or 'clip:' before a folder, an s3:// address or a pinned "
        "hub id; else the path or URL of the 2015 Inception as TorchScript.",
        min_length=1,
    )
    feature_extractor_sha256: str = Field(pattern="^([0-9a-f]{64})?$", description="Pins a file or URL; else ''.")
    clip: str = Field(description="Folder, s3:// address or hub id@revision of CLIP for its score; '' leaves it out.")
    min_detection_confidence: Fraction


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

    @model_validator(mode="after")
    def _flat_takes_no_poses(self) -> Self:
        if self.stage2.fusion == "flat" and self.stage1.pose_components:
            raise ValueError("stage1.pose_components: the flat fusion takes no poses; choose 0")
        return self

    @model_validator(mode="after")
    def _paper_loop_is_possible(self) -> Self:
        if self.stage2.paper_loop:
            for name, value in PAPER_LOOP_REQUIREMENTS.items():
                given: Any = self
                for part in name.split("."):
                    given = getattr(given, part)
                if given != value:
                    raise ValueError(f"stage2.paper_loop has no {name} but {value} (got {given})")
        return self


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


def load_settings(source: str | Path) -> Settings:
    """Settings from a preset's name or a YAML file.

    Raises:
        Hand1000Error: no such preset or file, or a field that is missing, unknown or out of range.
    """
    path = PRESETS / f"{source}.yaml"
    if not path.is_file():
        path = Path(source)
    if not path.is_file():
        known = ", ".join(sorted(preset.stem for preset in PRESETS.glob("*.yaml")))
        raise Hand1000Error(f"{source}: neither a preset ({known}) nor a file")
    try:
        return Settings.model_validate(yaml.safe_load(path.read_text()))
    except yaml.YAMLError as error:
        raise Hand1000Error(f"{path}: not YAML: {one_line(error)}") from error
    except ValidationError as error:
        raise Hand1000Error(format_validation_error(error, str(path))) from error
