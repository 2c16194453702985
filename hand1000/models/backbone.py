"""The interface of a backbone: the pretrained text-to-image model that Hand1000 trains and samples.

Everything that differs between Stable Diffusion 1.x, XL and a flow-matching transformer is behind `Backbone` and its
`NoiseSchedule`, so that there is one Stage II, one Stage III and one sampler. A new backbone is one file with a
subclass, an entry in `hand1000.models.base_model.BACKBONES`, and its rules in `hand1000.export`.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from hand1000.captions.token_limit import TokenLimit
from hand1000.config.sampler import SamplerName
from hand1000.config.settings import Settings
from hand1000.core.errors import Hand1000Error
from hand1000.models.conditioning import Conditioning
from hand1000.models.schedule import NoiseSchedule
from hand1000.storage.pretrained import check_config

if TYPE_CHECKING:
    import numpy as np
    import torch

Feature = Literal[
    "stage2.fusion: flat",
    "stage2.paper_loop",
    "ControlNet",
    "HandRefiner",
    "generation.sampler: dpmpp_2m",
    "generation.sampler: dpmpp_2m_sde",
    "generation.sampler: unipc",
    "generation.eta above 0",
    "compute.attention: eager",
]
"""What only some backbones can do, as a message names it."""

_SD_1, _DIFFUSION = "a model of Stable Diffusion 1.x", "a diffusion model"
_EULER = "choose ddim, which is Euler's method in a flow model"
_NEEDS: Mapping[Feature, tuple[str, str]] = {
    "stage2.fusion: flat": (_SD_1, "choose per_token"),
    "stage2.paper_loop": (_SD_1, "choose another preset than paper, or set it to false"),
    "ControlNet": (_SD_1, "choose such a model"),
    "HandRefiner": (_SD_1, "choose such a model as hand_refiner.inpainting_model"),
    "generation.sampler: dpmpp_2m": (_DIFFUSION, _EULER),
    "generation.sampler: dpmpp_2m_sde": (_DIFFUSION, _EULER),
    "generation.sampler: unipc": (_DIFFUSION, _EULER),
    "generation.eta above 0": (_DIFFUSION, "choose 0"),
    "compute.attention: eager": ("a model with a UNet", "choose sdpa"),
}
"""The models that have each feature, and what to choose with another one."""

FEATURES = frozenset(_NEEDS)
UNET_FEATURES = frozenset(feature for feature, (models, _) in _NEEDS.items() if models != _SD_1)
"""Features of every UNet, whose noise schedule is that of a diffusion model."""


def required_features(settings: Settings) -> list[Feature]:
    """Return what a training with these settings needs that only some backbones have."""
    needed: dict[Feature, bool] = {
        "stage2.fusion: flat": settings.stage2.fusion == "flat",
        "stage2.paper_loop": settings.stage2.paper_loop,
        "compute.attention: eager": settings.compute.attention == "eager",
    }
    sampler = sampler_features(settings.generation.sampler, settings.generation.eta)
    return [*(feature for feature, is_needed in needed.items() if is_needed), *sampler]


def sampler_features(sampler: SamplerName, eta: float) -> list[Feature]:
    """Return what a sampling needs that only some backbones have; `eta` counts with the sampler that reads it."""
    needed: dict[Feature, bool] = {
        "generation.sampler: dpmpp_2m": sampler == "dpmpp_2m",
        "generation.sampler: dpmpp_2m_sde": sampler == "dpmpp_2m_sde",
        "generation.sampler: unipc": sampler == "unipc",
        "generation.eta above 0": sampler == "ddim" and eta > 0,
    }
    return [feature for feature, is_needed in needed.items() if is_needed]


class Backbone(ABC):
    """The parts of a pretrained model, frozen and in evaluation mode, and what is done with them.

    A subclass is a frozen dataclass whose fields are the parts, under the names and in the order of its stock pipeline
    in diffusers, then `option_names`, and at last `source`, which errors name. It is cheap to make: a pipeline makes
    one of its parts whenever it needs one.
    """

    name: ClassVar[str]
    """Short name, which the `model_index.json` of a tuned model has."""

    title: ClassVar[str]
    """Name of the model's family for a reader."""

    pipeline_classes: ClassVar[Sequence[str]]
    """diffusers' pipelines of this model by class name; the first one is that of an export."""

    part_classes: ClassVar[Mapping[str, Collection[str]]]
    """Classes that each part may have, by the part's name; a scheduler may be of any class."""

    optional_parts: ClassVar[Collection[str]] = ()
    """Parts that may be None."""

    option_names: ClassVar[Sequence[str]] = ()
    """Settings in the index of the stock pipeline on which the conditioning depends; fields with a default."""

    denoiser_name: ClassVar[str] = "unet"
    """Name of the part that is trained: `unet` or `transformer`. It is also the prefix of its LoRA's names."""

    reads_more_than_tokens: ClassVar[bool] = False
    """Whether the denoiser takes more of the text than its tokens, see `Conditioning`."""

    text_layers: ClassVar[tuple[str, ...]] = ("attn2.to_k", "attn2.to_v")
    """Ends of the names of the denoiser's layers that read the tokens."""

    supports: ClassVar[frozenset[Feature]] = frozenset()

    vae: Any
    tokenizer: Any
    scheduler: Any
    source: str

    # --- The parts

    @classmethod
    def part_names(cls) -> tuple[str, ...]:
        """The names of all parts, in the order of the constructor's arguments."""
        return tuple(cls.part_classes)

    @classmethod
    def of_parts(cls, parts: Mapping[str, Any], index: Mapping[str, Any], source: str) -> Self:
        """Return the backbone of the parts with the names of `part_names`; its options are those of an index."""
        options = {name: index[name] for name in cls.option_names if name in index}
        return cls(**parts, **options, source=source)  # type: ignore[call-arg]

    @property
    def parts(self) -> dict[str, Any]:
        """All parts by name."""
        return {name: getattr(self, name) for name in self.part_names()}

    @property
    def options(self) -> dict[str, Any]:
        """All options by name."""
        return {name: getattr(self, name) for name in self.option_names}

    @property
    def denoiser(self) -> Any:
        """The network that is trained: a UNet or a transformer."""
        return getattr(self, self.denoiser_name)

    def with_denoiser(self, denoiser: Any) -> Self:
        """Return the backbone with another denoiser."""
        return dataclasses.replace(self, **{self.denoiser_name: denoiser})  # type: ignore[type-var]

    @property
    def device(self) -> "torch.device":
        """The device of the denoiser; the other parts may be elsewhere."""
        device: torch.device = self.denoiser.device
        return device

    @classmethod
    def load_part(cls, name: str, path: Path, source: str, dtype: "torch.dtype") -> Any:
        """Load the part `name` from its folder in that of the model.

        Args:
            name: Name of the part.
            path: Folder of the part.
            source: What errors name.
            dtype: Type of the weights.

        Raises:
            Hand1000Error: A file is missing or damaged.
        """
        from hand1000.models.parts import load_part

        if name == "scheduler":
            return cls.make_scheduler(check_config(path / "scheduler_config.json"), source)
        return load_part(next(iter(cls.part_classes[name])), name, path, source, dtype)

    @classmethod
    @abstractmethod
    def make_scheduler(cls, config: Mapping[str, Any], source: str = "scheduler") -> Any:
        """Make a new scheduler of the one class that `schedule` wraps, of a scheduler config of any class.

        Raises:
            Hand1000Error: The config is that of another kind of model; errors name `source`.
        """

    @classmethod
    @abstractmethod
    def read_resolution(cls, folder: Path, source: str) -> int:
        """Read the side in pixels of the square images from the configurations alone.

        Raises:
            Hand1000Error: A configuration is missing or malformed.
        """

    @abstractmethod
    def check(self, *further_denoisers: Any) -> None:
        """Check that the parts fit together, and that further denoisers, as that of autoguidance, fit the parts.

        Raises:
            Hand1000Error: A size differs between two parts, or a part is of a variant that is not supported.
        """

    # --- Text

    @property
    @abstractmethod
    def text_dim(self) -> int:
        """Width D of the tokens that the denoiser reads."""

    @property
    def token_limit(self) -> TokenLimit:
        """How much of a text all text encoders read."""
        return self.limit_of(self.tokenizer)

    @classmethod
    def limit_of(cls, tokenizer: Any) -> TokenLimit:
        """Return `token_limit` with a copy of the tokenizer, which changes while it is used."""
        return TokenLimit.of(tokenizer)

    @abstractmethod
    def encode_text(self, texts: Sequence[str]) -> Conditioning:
        """Encode N texts, each padded or cut to L tokens, as the stock pipeline does; on the text encoder's device."""

    def null_conditioning(self, empty: Conditioning) -> Conditioning:
        """Return the conditioning without a prompt, made of that of "".

        It is what the stock pipeline takes if it is given no negative prompt: that of "" itself, or zeros.
        """
        return empty

    # --- Images

    @property
    @abstractmethod
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape of one image's latents, (C, h, w)."""

    @property
    @abstractmethod
    def resolution(self) -> int:
        """Side of the images in pixels."""

    def encode_images(self, images: "np.ndarray", batch_size: int = 32) -> "torch.Tensor":
        """Encode uint8 images (N, H, W, 3) as scaled latents (N, C, h, w), float32 on the CPU."""
        from hand1000.models.encoding import encode_latents

        return encode_latents(self.vae, images, batch_size)

    def decode(self, latents: "torch.Tensor") -> "np.ndarray":
        """Decode scaled latents (B, C, h, w) to uint8 images (B, H, W, 3)."""
        from hand1000.models.encoding import decode_latents

        return decode_latents(self.vae, latents)

    # --- Noise

    @property
    @abstractmethod
    def schedule(self) -> NoiseSchedule:
        """The noise schedule, of the part `scheduler`."""

    @abstractmethod
    def predict(
        self, latents: "torch.Tensor", timesteps: "torch.Tensor", conditioning: Conditioning, denoiser: Any = None
    ) -> "torch.Tensor":
        """Return the prediction of the denoiser, (B, C, h, w).

        Args:
            latents: Noisy latents, (B, C, h, w).
            timesteps: The schedule's timesteps, (B,) or one for all, ().
            conditioning: Conditioning of the B images, on the denoiser's device.
            denoiser: Another denoiser of this form, such as one wrapped for several processes or that of autoguidance.
        """

    # --- Export

    @abstractmethod
    def fold(self, matrix: "torch.Tensor", shift: "torch.Tensor") -> None:
        """Let the denoiser read e where it read A e + c, by changing its weights in place.

        Args:
            matrix: A, (D, D) float64 on the CPU.
            shift: c, (D,) float64 on the CPU.
        """

    def stock_guidance_scale(self, scale: float) -> float:
        """Return the `guidance_scale` with which the stock pipeline guides as strongly as Hand1000 with `scale`."""
        return scale

    @abstractmethod
    def stock_pipeline(self) -> Any:
        """Return diffusers' own pipeline of these parts, with a scheduler of its own."""

    # --- Features that not every backbone has

    @classmethod
    def require(cls, feature: Feature, source: str) -> None:
        """Raise a Hand1000Error if models of this kind do not have a feature."""
        if feature not in cls.supports:
            models, remedy = _NEEDS[feature]
            raise Hand1000Error(f"{source}: {feature} needs {models}, but this is {cls.title}; {remedy}")
