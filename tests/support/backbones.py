"""The tiny backbones other than Stable Diffusion 1.x, which each suite tests alike: a new one joins by a line."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from hand1000.config.settings import Settings, load_settings
from hand1000.models.backbone import Backbone
from hand1000.training.encoded_dataset import EncodedDataset
from tests.support.tiny_models import encoded_dataset
from tests.support.tiny_sd3 import fresh_sd3, save_tiny_sd3
from tests.support.tiny_sdxl import fresh_sdxl, save_tiny_sdxl
from tests.support.tiny_zimage import fresh_zimage, save_tiny_zimage

UNET_LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "time_emb_proj"]
UNET_LAYERS += ["conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv"]


@dataclass(frozen=True)
class TinyBackbone:
    """A backbone with tiny random weights.

    Attributes:
        name: Name of the backbone and of its preset.
        fresh: Makes the model, with a denoiser of its own.
        save: Saves the model as a diffusers folder.
        targets: Layers of an adapter, beside those of the preset.
        lora_forms: Forms of an export as LoRA that diffusers reads.
        sampler: Settings of the sampler beside those of every test.
        stock_call: The arguments that the stock pipeline needs for the same images with a `guidance_scale` of 2.5; one
            that is less by 1.5 turns guidance off.
    """

    name: str
    fresh: Callable[[], Backbone]
    save: Callable[[Path], Path]
    targets: Sequence[str]
    lora_forms: Sequence[Any] = ("lora", "lora-diffusers")
    sampler: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    stock_call: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {"guidance_scale": 2.5})

    @property
    def settings(self) -> Settings:
        """The preset."""
        return load_settings(self.name)

    def dataset(self) -> EncodedDataset:
        """Five random images with captions that the text encoders read; shared, so tests must not change it."""
        return _dataset(self.fresh)


@cache
def _dataset(fresh: Callable[[], Backbone]) -> EncodedDataset:
    base = fresh()
    words = ("red", "blue", "a", "left", "hand")
    conditioning = base.encode_text([*[f"a {word} hand" for word in words], ""])
    captions, null = conditioning[:-1], base.null_conditioning(conditioning[-1:])
    latents = torch.randn(5, *base.latent_shape, generator=torch.Generator().manual_seed(1))
    return dataclasses.replace(
        encoded_dataset(latents, captions.tokens),
        empty_embedding=null.tokens[0],
        pooled=captions.pooled,
        empty_pooled=None if null.pooled is None else null.pooled[0],
        lengths=captions.lengths,
        empty_length=None if null.lengths is None else null.lengths[0],
    )


TINY_BACKBONES = {
    tiny.name: tiny
    for tiny in (
        TinyBackbone(
            "sdxl",
            fresh_sdxl,
            save_tiny_sdxl,
            UNET_LAYERS,
            sampler={"eta": 0.6},
            stock_call={"guidance_scale": 2.5, "eta": 0.6},
        ),
        TinyBackbone(
            "sd3",
            fresh_sd3,
            save_tiny_sd3,
            ["context_embedder", "to_q", "ff.net.0.proj", "norm1.linear"],
            lora_forms=("lora-diffusers",),
        ),
        TinyBackbone(
            "zimage",
            fresh_zimage,
            save_tiny_zimage,
            ["cap_embedder.1", "to_q", "w2", "noise_refiner.0.adaLN_modulation.0"],
            stock_call={"guidance_scale": 1.5, "height": 16, "width": 16},
        ),
    )
}
