"""The base model, from a folder, a hub id or an `s3://` address, through one loader."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hand1000.core.errors import Hand1000Error
from hand1000.storage.files import read_json
from hand1000.storage.hub import fetch_model_folder

if TYPE_CHECKING:
    import torch


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
    """A local diffusers folder for `source`.

    Args:
        source: a folder; the `s3://` address of one; or a hub id, `owner/name` or `owner/name@revision`.

    Raises:
        Hand1000Error: nothing is there, or a hub id that is not pinned.
    """
    folder = fetch_model_folder(source)
    if not (folder / "model_index.json").is_file():
        raise Hand1000Error(f"{source}: no diffusers folder: model_index.json is missing")
    return folder


def read_resolution(source: str) -> int:
    """Side in pixels of the square pictures that the UNet was trained on, read from the configurations alone."""
    folder = resolve_base_model(source)
    unet, vae = (read_json(folder / part / "config.json") for part in ("unet", "vae"))
    return unet["sample_size"] * 2 ** (len(vae["block_out_channels"]) - 1)


def load_base_model(
    source: str,
    device: "torch.device | str" = "cpu",
    *,
    unet_dtype: "torch.dtype | None" = None,
    unet_only: bool = False,
) -> BaseModel:
    """Load `source` (see `resolve_base_model`).

    Args:
        source: of the model.
        device: where it computes.
        unet_dtype: of the UNet's weights, which are never in memory in another; float32 by default, as all the rest is.
        unet_only: leave the other parts on the CPU: training needs only the UNet on the device.

    Raises:
        Hand1000Error: the folder lacks a part, or holds it only as a pickle.
    """
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    folder = resolve_base_model(source)
    options = {"use_safetensors": True}
    try:
        vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=torch.float32, **options)
        unet = UNet2DConditionModel.from_pretrained(
            folder, subfolder="unet", torch_dtype=unet_dtype or torch.float32, **options
        )
        text_encoder = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", dtype=torch.float32, **options)
        tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
        scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler")
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise Hand1000Error(f"{source}: cannot be loaded as a Stable Diffusion 1.x folder: {reason}") from error
    for module in (vae, unet, text_encoder):
        module.to(memory_format=torch.channels_last if module is not text_encoder else torch.preserve_format)
        module.to(device if module is unet or not unet_only else "cpu").requires_grad_(False).eval()
    return BaseModel(vae, text_encoder, tokenizer, unet, scheduler, source)
