"""Stable Diffusion 1.x and 2.x: a UNet that reads the last hidden states of one text encoder of CLIP."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hand1000.core.errors import Hand1000Error
from hand1000.models.backbone import FEATURES, UNET_FEATURES, Backbone, Feature
from hand1000.models.conditioning import Conditioning
from hand1000.models.noise_schedule import make_noise_scheduler
from hand1000.storage.pretrained import check_config

if TYPE_CHECKING:
    import torch
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    from hand1000.models.ddim import DDIMSchedule

_MAX_SAMPLE_SIZE, _MAX_BLOCKS = 1024, 8
"""Largest side of the latents and largest number of an autoencoder's blocks; Stable Diffusion 1.x has 64 and 4."""


class LatentDiffusion(Backbone):
    """What all backbones have in common whose UNet is diffusers' UNet2DConditionModel and whose schedule is DDIM's."""

    supports: ClassVar[frozenset[Feature]] = UNET_FEATURES

    unet: Any
    unsupported_options: ClassVar[Collection[str]] = (
        "addition_embed_type",
        "class_embed_type",
        "encoder_hid_dim_type",
        "time_cond_proj_dim",
    )
    """Options of a UNet that make it take more inputs than `predict` gives it."""

    @classmethod
    def make_scheduler(cls, config: Mapping[str, Any], source: str = "scheduler") -> "DDIMScheduler":
        """See `Backbone` and `make_noise_scheduler`."""
        return make_noise_scheduler(config, source)

    @classmethod
    def read_resolution(cls, folder: Path, source: str) -> int:
        """See `Backbone`."""
        unet, vae = (check_config(folder / part / "config.json") for part in ("unet", "vae"))
        size = unet.get("sample_size")
        check_sample_size(source, size)
        resolution: int = size * 2 ** count_halvings(source, vae)
        return resolution

    def check(self, *further_denoisers: Any) -> None:
        """See `Backbone`."""
        source, channels, scale = self.source, self.vae.config.latent_channels, self.vae.config.scaling_factor
        if not isinstance(scale, int | float) or not 0 < scale < math.inf:
            raise Hand1000Error(f"{source}: vae: scaling_factor is {scale!r:.40}, not a positive number")
        for unet in (self.unet, *further_denoisers):
            check_sample_size(source, unet.config.sample_size)
            sizes = {
                "in_channels": (unet.config.in_channels, channels, "the autoencoder's latents"),
                "out_channels": (unet.config.out_channels, channels, "the autoencoder's latents"),
                "cross_attention_dim": (unet.config.cross_attention_dim, self.text_dim, "the text encoder's width"),
            }
            for name, (value, expected, part) in sizes.items():
                if value != expected:
                    raise Hand1000Error(f"{source}: unet: {name} is {value!r:.40}, but {part} are {expected!r:.40}")
            for name in self.unsupported_options:
                if unet.config.get(name) is not None:
                    raise Hand1000Error(f"{source}: unet: {name} is set; choose a model of {self.title}")

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """See `Backbone`."""
        config = self.unet.config
        return config.in_channels, config.sample_size, config.sample_size

    @property
    def resolution(self) -> int:
        """See `Backbone`."""
        resolution: int = self.unet.config.sample_size * 2 ** (len(self.vae.config.block_out_channels) - 1)
        return resolution

    @property
    def schedule(self) -> "DDIMSchedule":
        """See `Backbone`."""
        from hand1000.models.ddim import DDIMSchedule

        return DDIMSchedule(self.scheduler)

    def fold(self, matrix: "torch.Tensor", shift: "torch.Tensor") -> None:
        """Fold A e + c into every cross-attention; the derivation is in docs/method.md, "A plain checkpoint".

        The keys need no c, since a softmax ignores a constant, and the values' becomes a bias of the output.
        """
        import torch

        with torch.no_grad():
            for name, attention in self.unet.named_modules():
                if not name.endswith("attn2"):
                    continue
                to_k, to_v, to_out = attention.to_k, attention.to_v, attention.to_out[0]
                key_weight, value_weight, out_weight = (layer.weight.double().cpu() for layer in (to_k, to_v, to_out))
                to_out.bias.add_((out_weight @ (value_weight @ shift)).to(to_out.bias))
                to_k.weight.copy_(key_weight @ matrix)
                to_v.weight.copy_(value_weight @ matrix)


def check_sample_size(source: str, size: object, part: str = "unet") -> None:
    """Raise a Hand1000Error if the side of a denoiser's latents is not one of square images of a moderate size."""
    if not isinstance(size, int) or not 1 <= size <= _MAX_SAMPLE_SIZE:
        raise Hand1000Error(
            f"{source}: {part}: sample_size is {size!r:.40}; Hand1000 generates square images of 1 to "
            f"{_MAX_SAMPLE_SIZE} latents a side"
        )


def count_halvings(source: str, vae: Mapping[str, Any]) -> int:
    """Return how often an autoencoder with this config halves an image.

    Raises:
        Hand1000Error: The config does not say it.
    """
    blocks = vae.get("block_out_channels")
    if not isinstance(blocks, list | tuple) or not 1 <= len(blocks) <= _MAX_BLOCKS:
        raise Hand1000Error(f"{source}: vae: block_out_channels is {blocks!r:.40}, not a list of widths")
    return len(blocks) - 1


@dataclass(frozen=True)
class StableDiffusion(LatentDiffusion):
    """The parts of Stable Diffusion 1.x or 2.x."""

    name = "sd"
    title = "Stable Diffusion 1.x"
    pipeline_classes = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline")
    part_classes: ClassVar[Mapping[str, Collection[str]]] = {
        "vae": ("AutoencoderKL",),
        "text_encoder": ("CLIPTextModel",),
        "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
        "unet": ("UNet2DConditionModel",),
        "scheduler": (),
    }
    supports: ClassVar[frozenset[Feature]] = FEATURES

    vae: Any
    text_encoder: Any
    tokenizer: Any
    unet: Any
    scheduler: Any
    source: str = ""

    @property
    def text_dim(self) -> int:
        """See `Backbone`."""
        width: int = self.text_encoder.config.hidden_size
        return width

    def encode_text(self, texts: Sequence[str]) -> Conditioning:
        """See `Backbone`."""
        from hand1000.models.encoding import encode_texts

        return Conditioning(encode_texts(self.text_encoder, self.tokenizer, texts))

    def predict(
        self, latents: "torch.Tensor", timesteps: "torch.Tensor", conditioning: Conditioning, denoiser: Any = None
    ) -> "torch.Tensor":
        """See `Backbone`."""
        prediction: torch.Tensor = (denoiser or self.unet)(latents, timesteps, conditioning.tokens).sample
        return prediction

    def stock_pipeline(self) -> "StableDiffusionPipeline":
        """See `Backbone`."""
        from diffusers import StableDiffusionPipeline

        return StableDiffusionPipeline(
            self.vae,
            self.text_encoder,
            self.tokenizer,
            self.unet,
            self.schedule.stock_scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
