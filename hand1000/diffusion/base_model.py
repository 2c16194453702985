"""The base model, from a folder, a hub id or an `s3://` address, through one loader."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hand1000.errors import Hand1000Error
from hand1000.storage.files import read_json
from hand1000.storage.folders import folder_digest, local_folder

if TYPE_CHECKING:
    import torch

PINNED_REVISIONS = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
    "CompVis/stable-diffusion-v1-4": "133a221b8aa7292a167afc5127cb63fb5005638b",
}
"""What the known hub ids mean when no revision is given."""

WEIGHTS = ["*.json", "*.txt", "*.safetensors"]
"""What is fetched of a hub repository: never a pickle."""


@dataclass(frozen=True)
class BaseModel:
    """The parts of Stable Diffusion, frozen and in evaluation mode."""

    vae: Any
    text_encoder: Any
    tokenizer: Any
    unet: Any
    scheduler: Any
    source: str


def best_device() -> "torch.device":
    """The accelerator where there is one, else the CPU."""
    import torch

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator or torch.device("cpu")


def resolve_base_model(source: str) -> Path:
    """A local diffusers folder for `source`.

    Args:
        source: a folder; the `s3://` address of one; or a hub id, `owner/name` or `owner/name@revision`.

    Raises:
        Hand1000Error: nothing is there, or a hub id that is not pinned.
    """
    if _is_hub_id(source):
        return _fetch_from_hub(source)
    folder = local_folder(source)
    if not (folder / "model_index.json").is_file():
        raise Hand1000Error(f"{source}: no diffusers folder: model_index.json is missing")
    return folder


def base_identity(source: str) -> str:
    """What tells this base model from any other: its content's digest, or the hub id with its revision."""
    return _pinned(source) if _is_hub_id(source) else folder_digest(source)


def base_resolution(source: str) -> int:
    """Side in pixels of the square pictures that the UNet was trained on, read from the configurations alone."""
    folder = resolve_base_model(source)
    unet, vae = (read_json(folder / part / "config.json") for part in ("unet", "vae"))
    return unet["sample_size"] * 2 ** (len(vae["block_out_channels"]) - 1)


def _is_hub_id(source: str) -> bool:
    return not (source.startswith(("s3://", ".", "/", "~")) or source.count("/") != 1 or Path(source).exists())


def _pinned(source: str) -> str:
    name, _, revision = source.partition("@")
    revision = revision or PINNED_REVISIONS.get(name, "")
    if not revision:
        raise Hand1000Error(f"{source}: pin the revision of the hub model, as in {name}@<commit>")
    return f"{name}@{revision}"


def _fetch_from_hub(source: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    name, _, revision = _pinned(source).partition("@")
    try:
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=WEIGHTS, ignore_patterns=["safety_checker/*", "*.fp16.*"]
            )
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise Hand1000Error(f"{source}: the hub gave no such model, or cannot be reached ({reason})") from error


def load_base_model(source: str, device: "torch.device | str" = "cpu") -> BaseModel:
    """Load `source` (see `resolve_base_model`) in float32 onto `device`.

    Raises:
        Hand1000Error: the folder lacks a part, or holds it only as a pickle.
    """
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    folder = resolve_base_model(source)
    options = {"torch_dtype": torch.float32, "use_safetensors": True}
    try:
        vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", **options)
        unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", **options)
        text_encoder = CLIPTextModel.from_pretrained(
            folder, subfolder="text_encoder", dtype=torch.float32, use_safetensors=True
        )
        tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
        scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler")
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise Hand1000Error(f"{source}: cannot be loaded as a Stable Diffusion 1.x folder: {reason}") from error
    for module in (vae, unet, text_encoder):
        module.to(device, memory_format=torch.channels_last if module is not text_encoder else torch.preserve_format)
        module.requires_grad_(False).eval()
    return BaseModel(vae, text_encoder, tokenizer, unet, scheduler, source)
