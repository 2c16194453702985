"""Low-rank adapters beside the UNet's frozen weights (Hu et al., 2021), by peft."""

from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel

from hand1000.config.settings import LoraSettings
from hand1000.core.errors import Hand1000Error
from hand1000.core.rng import derived_seed
from hand1000.training.checkpoint import trained_parameters
from hand1000.training.model_folder import ADAPTER_FILE


def add_adapter(unet: UNet2DConditionModel, settings: LoraSettings, seed: int) -> None:
    """Give `unet` an adapter in place: its own weights are frozen, the adapter's, float32, are trained.

    Args:
        unet: in any precision.
        settings: rank, alpha and which layers.
        seed: of the run; an adapter starts with one random factor and the other zero, so that it changes nothing.

    Raises:
        Hand1000Error: the UNet has no layer of a name that is asked for.
    """
    from peft import LoraConfig

    unet.requires_grad_(False)
    ends = tuple(settings.targets)
    for end in ends:
        if not any(name == end or name.endswith(f".{end}") for name, _ in unet.named_modules()):
            raise Hand1000Error(f"stage3.lora.targets: the UNet has no layer whose name ends with {end}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "lora-start"))
        unet.add_adapter(
            LoraConfig(
                r=settings.rank, lora_alpha=settings.alpha, target_modules=list(ends), init_lora_weights="gaussian"
            )
        )
    for parameter in trained_parameters(unet).values():
        parameter.data = parameter.data.float()


def save_adapter(unet: UNet2DConditionModel, folder: Path) -> None:
    """Write the adapter of `unet` into `folder`, for `load_lora_weights` of any Stable Diffusion pipeline."""
    from peft import get_peft_model_state_dict

    StableDiffusionPipeline.save_lora_weights(
        folder,
        weight_name=ADAPTER_FILE,
        unet_lora_layers=get_peft_model_state_dict(unet, adapter_name="default"),
        unet_lora_adapter_metadata=unet.peft_config["default"].to_dict(),
    )


def merge_adapter(unet: UNet2DConditionModel) -> None:
    """Add the adapter of `unet` to its weights, in place: W + B A alpha / rank; nothing of peft is left."""
    unet.fuse_lora()
    unet.unload_lora()
    unet.requires_grad_(False).eval()
