"""The names of a LoRA's tensors in the files of other programs."""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from diffusers import SD3Transformer2DModel, UNet2DConditionModel

from hand1000.export.single_file import unet_renamer
from hand1000.export.transformer_keys import Factors, released_layers
from hand1000.training.checkpoint import Tensors
from hand1000.training.lora import ADAPTER_METADATA

KohyaModel = UNet2DConditionModel | SD3Transformer2DModel
"""Classes of denoisers whose layers kohya's trainer has names for."""


def kohya_entries(denoiser: Any, layers: dict[str, Factors], alpha: int) -> tuple[Tensors, dict[str, str]]:
    """Return `lora_unet_<layer>.lora_down.weight`, `.lora_up.weight` and `.alpha` of each layer, and the metadata.

    kohya's trainer names the layers of Stable Diffusion 1.x and 2.x as diffusers does, and those of Stable Diffusion XL
    and 3 as the original release does. Programs multiply by alpha / rank, so `up` is divided by it. All layers have one
    `alpha`, whatever their rank, because diffusers 0.42 applies the most frequent one to all.
    """
    rename: Callable[[str], str] = str
    if isinstance(denoiser, SD3Transformer2DModel):
        layers = released_layers(denoiser, layers)
    elif denoiser.config.addition_embed_type == "text_time":
        rename = unet_renamer(denoiser)
    weights: Tensors = {}
    for name, (down, up) in layers.items():
        layer = "lora_unet_" + rename(f"{name}.weight").removesuffix(".weight").replace(".", "_")
        weights[f"{layer}.lora_down.weight"] = down.float().contiguous()
        weights[f"{layer}.lora_up.weight"] = (up * (len(down) / alpha)).float().contiguous()
        weights[f"{layer}.alpha"] = torch.tensor(float(alpha))
    return weights, {"format": "pt"}


def diffusers_entries(layers: dict[str, Factors], prefix: str) -> tuple[Tensors, dict[str, str]]:
    """Return `<prefix>.<layer>.lora_A.weight` and `.lora_B.weight` of each layer, and the metadata with their ranks.

    Without the metadata, versions of diffusers differ in the scale of layers of other ranks than most.
    """
    weights: Tensors = {}
    for name, (down, up) in layers.items():
        weights[f"{prefix}.{name}.lora_A.weight"] = down.float().contiguous()
        weights[f"{prefix}.{name}.lora_B.weight"] = up.float().contiguous()
    ranks = {name: len(down) for name, (down, _) in layers.items()}
    ((most, _),) = Counter(ranks.values()).most_common(1)
    others = {name: rank for name, rank in ranks.items() if rank != most}
    settings = {
        f"{prefix}.r": most,
        f"{prefix}.lora_alpha": most,
        f"{prefix}.target_modules": sorted(ranks),
        f"{prefix}.rank_pattern": others,
        f"{prefix}.alpha_pattern": others,
    }
    return weights, {"format": "pt", ADAPTER_METADATA: json.dumps(settings, sort_keys=True)}
