"""Low-rank adapters beside the frozen weights of the UNet (Hu et al., 2021), through peft."""

from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.training_utils import cast_training_params

from hand1000.config.settings import LoraSettings
from hand1000.core.errors import Hand1000Error
from hand1000.core.rng import derived_seed

ADAPTER_DIR = "lora"
"""Folder of the adapter inside a model's folder; the adapter is merged into the UNet as well."""

ADAPTER_FILE = "pytorch_lora_weights.safetensors"


def add_adapter(unet: UNet2DConditionModel, settings: LoraSettings, seed: int) -> None:
    """Freeze `unet` in place and add a trainable float32 adapter.

    One factor of the adapter starts at random, the other at zero, so that the untrained adapter changes nothing.

    Raises:
        Hand1000Error: The UNet has no layer with the name of a target.
    """
    from peft import LoraConfig

    unet.requires_grad_(False)
    for target in settings.targets:
        if not any(name == target or name.endswith(f".{target}") for name, _ in unet.named_modules()):
            raise Hand1000Error(f"stage3.lora.targets: the UNet has no layer whose name ends with {target}")
    rank, alpha, targets = settings.rank, settings.alpha, list(settings.targets)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, init_lora_weights="gaussian")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "lora-start"))
        unet.add_adapter(config)
    cast_training_params(unet, torch.float32)


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
    """Merge the adapter of `unet` into its weights, in place: W + B A alpha / rank; nothing of peft remains."""
    unet.fuse_lora()
    unet.unload_lora()
    unet.requires_grad_(False).eval()
