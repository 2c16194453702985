"""Loading of the base model from a folder, a hub id or an `s3://` address."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hand1000.captions.token_limit import load_tokenizer
from hand1000.core.errors import Hand1000Error
from hand1000.models.noise_schedule import make_noise_scheduler
from hand1000.storage.hub import fetch_model_folder
from hand1000.storage.pretrained import check_config, load_model

if TYPE_CHECKING:
    import torch


_MAX_SAMPLE_SIZE, _MAX_BLOCKS = 1024, 8
"""Largest side of the latents and largest number of an autoencoder's blocks; Stable Diffusion 1.x has 64 and 4."""


@dataclass(frozen=True)
class BaseModel:
    """The parts of Stable Diffusion, frozen and in evaluation mode."""

    vae: Any
    text_encoder: Any
    tokenizer: Any
    unet: Any
    scheduler: Any
    source: str


def resolve_base_model(source: str) -> Path:
    """Return the local diffusers folder of `source`.

    Args:
        source: Folder, `s3://` address of a folder, or hub id with its revision, `owner/name@revision`.

    Raises:
        Hand1000Error: The model is missing, or the hub id has no revision.
    """
    folder = fetch_model_folder(source)
    if not (folder / "model_index.json").is_file():
        raise Hand1000Error(f"{source}: no diffusers folder: model_index.json is missing")
    return folder


def read_resolution(source: str) -> int:
    """Read the side in pixels of the UNet's square images from the configurations alone.

    Raises:
        Hand1000Error: A configuration is missing or malformed.
    """
    folder = resolve_base_model(source)
    unet, vae = (check_config(folder / part / "config.json") for part in ("unet", "vae"))
    size, blocks = unet.get("sample_size"), vae.get("block_out_channels")
    _check_sample_size(source, size)
    if not isinstance(blocks, list) or not 1 <= len(blocks) <= _MAX_BLOCKS:
        raise Hand1000Error(f"{source}: vae: block_out_channels is {blocks!r:.40}, not a list of widths")
    return size * 2 ** (len(blocks) - 1)


def _check_sample_size(source: str, size: object) -> None:
    if not isinstance(size, int) or not 1 <= size <= _MAX_SAMPLE_SIZE:
        raise Hand1000Error(
            f"{source}: unet: sample_size is {size!r:.40}; Hand1000 generates square images of 1 to {_MAX_SAMPLE_SIZE} "
            "latents a side"
        )


def load_base_model(
    source: str,
    device: "torch.device | str" = "cpu",
    *,
    unet_dtype: "torch.dtype | None" = None,
    unet_only: bool = False,
) -> BaseModel:
    """Load a base model in float32.

    Args:
        source: Address of the model, see `resolve_base_model`.
        device: Device of the weights.
        unet_dtype: Another dtype of the UNet; its weights are never in memory in float32.
        unet_only: Leave the other parts on the CPU, because training needs only the UNet on the device.

    Raises:
        Hand1000Error: A part is missing, damaged or saved only as a pickle, the parts do not fit together, or the noise
            schedule is not one of DDIM.
    """
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

    folder = resolve_base_model(source)
    read_resolution(source)
    vae = load_model(AutoencoderKL, folder / "vae", "an autoencoder", torch_dtype=torch.float32)
    unet = load_model(UNet2DConditionModel, folder / "unet", "a UNet", torch_dtype=unet_dtype or torch.float32)
    text_encoder = load_model(CLIPTextModel, folder / "text_encoder", "a text encoder of CLIP", dtype=torch.float32)
    tokenizer = load_tokenizer(folder, source)
    scheduler = make_noise_scheduler(check_config(folder / "scheduler" / "scheduler_config.json"), source)
    check_parts(source, vae, text_encoder, unet)
    for module in (vae, unet, text_encoder):
        module.to(memory_format=torch.channels_last if module is not text_encoder else torch.preserve_format)
        module.to(device if module is unet or not unet_only else "cpu").requires_grad_(False).eval()
    return BaseModel(vae, text_encoder, tokenizer, unet, scheduler, source)


def check_parts(source: str, vae: Any, text_encoder: Any, *unets: Any) -> None:
    """Check that the parts of a model fit together and are those of Stable Diffusion 1.x.

    Raises:
        Hand1000Error: A size differs between two parts, or a UNet needs more inputs than latents, time and text.
    """
    channels, width, scale = vae.config.latent_channels, text_encoder.config.hidden_size, vae.config.scaling_factor
    if not isinstance(scale, int | float) or not 0 < scale < math.inf:
        raise Hand1000Error(f"{source}: vae: scaling_factor is {scale!r:.40}, not a positive number")
    for unet in unets:
        _check_sample_size(source, unet.config.sample_size)
        sizes = {
            "in_channels": (unet.config.in_channels, channels, "the autoencoder's latents"),
            "out_channels": (unet.config.out_channels, channels, "the autoencoder's latents"),
            "cross_attention_dim": (unet.config.cross_attention_dim, width, "the text encoder's width"),
        }
        for name, (value, expected, part) in sizes.items():
            if value != expected:
                raise Hand1000Error(f"{source}: unet: {name} is {value!r:.40}, but {part} are {expected!r:.40}")
        for name in ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type", "time_cond_proj_dim"):
            if unet.config.get(name) is not None:
                raise Hand1000Error(f"{source}: unet: {name} is set; choose a model of Stable Diffusion 1.x")
