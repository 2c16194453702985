"""Loading of the base model from a folder, a hub id or an `s3://` address."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hand1000.captions.token_limit import load_tokenizer
from hand1000.core.errors import Hand1000Error, translate_load_errors
from hand1000.models.noise_schedule import make_noise_scheduler
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
    """Read the side in pixels of the UNet's square images from the configurations alone."""
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
    """Load a base model in float32.

    Args:
        source: Address of the model, see `resolve_base_model`.
        device: Device of the weights.
        unet_dtype: Another dtype of the UNet; its weights are never in memory in float32.
        unet_only: Leave the other parts on the CPU, because training needs only the UNet on the device.

    Raises:
        Hand1000Error: A part is missing or is saved only as a pickle, or the noise schedule is not one of DDIM.
    """
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

    folder = resolve_base_model(source)
    options = {"use_safetensors": True}
    with translate_load_errors(source, "a Stable Diffusion 1.x folder"):
        vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=torch.float32, **options)
        unet = UNet2DConditionModel.from_pretrained(
            folder, subfolder="unet", torch_dtype=unet_dtype or torch.float32, **options
        )
        text_encoder = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", dtype=torch.float32, **options)
    tokenizer = load_tokenizer(folder, source)
    scheduler = make_noise_scheduler(read_json(folder / "scheduler" / "scheduler_config.json"), source)
    for module in (vae, unet, text_encoder):
        module.to(memory_format=torch.channels_last if module is not text_encoder else torch.preserve_format)
        module.to(device if module is unet or not unet_only else "cpu").requires_grad_(False).eval()
    return BaseModel(vae, text_encoder, tokenizer, unet, scheduler, source)
