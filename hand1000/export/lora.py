"""Export of an adapter, with the fusion folded in, as a LoRA in kohya's format, which most other programs read.

The derivation is in docs/method.md, "A plain checkpoint".
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from hand1000.core.errors import Hand1000Error
from hand1000.export.fold import affine_fusion
from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline
from hand1000.training.checkpoint import Tensors
from hand1000.training.lora import ADAPTER_FILE

SINGULAR_VALUE_TOLERANCE = 1e-7
"""Singular values below this share of the largest one are dropped: they change nothing in 32 bits."""

MAX_SHIFT = 1e4
"""Entries of the constant direction above which the shift would be a small difference of large numbers."""


def constant_direction(norm: nn.LayerNorm) -> torch.Tensor:
    """Return the vector v, (D,) float64, with v.e = 1 for every output e of a layer norm: they are all on one plane.

    The normalized inputs x_i of e_i = w_i x_i + b_i add up to 0, so that sum(e_i / w_i) = sum(b_i / w_i).

    Raises:
        Hand1000Error: The plane is too near to the origin.
    """
    weight, bias = norm.weight.detach().double().cpu(), norm.bias.detach().double().cpu()
    total = (bias / weight).sum()
    direction = 1 / (weight * total)
    if not direction.abs().max() <= MAX_SHIFT:
        raise Hand1000Error(
            "the text encoder's last layer norm has no bias that could carry the gesture, so the fusion cannot be "
            "folded into a LoRA; choose diffusers or single-file"
        )
    return direction


@torch.no_grad()
def kohya_weights(pipeline: Hand1000Pipeline, adapter: Path, mu: float, gesture: str) -> Tensors:
    """Return the LoRA that turns the base model into this one, for one gesture and one mu.

    The pipeline has the adapter merged into its UNet; the folder `adapter` holds it alone, as `save_adapter` wrote it.
    The entries of each layer are `lora_unet_<layer>.lora_down.weight`, `.lora_up.weight` and `.alpha`.

    Raises:
        Hand1000Error: The model's fusion cannot be folded.
    """
    with safe_open(adapter / ADAPTER_FILE, "pt") as file:
        settings = json.loads(file.metadata()["lora_adapter_metadata"])
        factors = {name.removeprefix("unet."): file.get_tensor(name).cpu() for name in file.keys()}  # noqa: SIM118
    rank = settings["unet.r"]
    scale = settings["unet.lora_alpha"] / rank
    matrix, shift = affine_fusion(pipeline, mu, gesture)
    text_encoder: Any = pipeline.text_encoder
    norm = getattr(text_encoder, "text_model", text_encoder).final_layer_norm
    matrix = matrix + torch.outer(shift, constant_direction(norm))
    weights: Tensors = {}
    for name, module in pipeline.unet.named_modules():
        down, up = (factors.get(f"{name}.lora_{side}.weight") for side in "AB")
        if name.endswith(("attn2.to_k", "attn2.to_v")):
            tuned = base = module.weight.double().cpu()
            if down is not None and up is not None:
                base = tuned - scale * up.double() @ down.double()
            down, up = _svd_factorize(tuned @ matrix - base)
            weights |= _kohya_entries(name, down, up, rank)
        elif down is not None and up is not None:
            weights |= _kohya_entries(name, down, up * scale, rank)
    return weights


def _svd_factorize(difference: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Factorize (out, in) into down (R, in) and up (out, R), with up @ down = `difference` and R minimal."""
    left, values, right = torch.linalg.svd(difference, full_matrices=False)
    rank = max(1, int((values > SINGULAR_VALUE_TOLERANCE * values[0]).sum()))
    root = values[:rank].sqrt()
    return root[:, None] * right[:rank], left[:, :rank] * root


def _kohya_entries(name: str, down: torch.Tensor, up: torch.Tensor, alpha: int) -> Tensors:
    """Entries of a layer to which up @ down is added.

    Programs multiply by alpha / rank, so `up` is divided by it. All layers have one `alpha`, whatever their rank,
    because diffusers 0.42 applies the most frequent one to all.
    """
    prefix = "lora_unet_" + name.replace(".", "_")
    return {
        f"{prefix}.lora_down.weight": down.float().contiguous(),
        f"{prefix}.lora_up.weight": (up * (len(down) / alpha)).float().contiguous(),
        f"{prefix}.alpha": torch.tensor(float(alpha)),
    }
