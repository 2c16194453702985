"""A tuned adapter, the fusion folded in, as one LoRA file by the names that most other programs read.

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
from hand1000.training.model_folder import ADAPTER_FILE

SINGULAR_VALUE_TOLERANCE = 1e-7
"""Of the largest singular value: what is below adds nothing in 32 bits."""

MAX_SHIFT = 1e4
"""Above this, what carries the shift would be a small difference of large numbers."""


def constant_direction(norm: nn.LayerNorm) -> torch.Tensor:
    """V with v.e = 1 for every output e of a layer norm: its outputs lie on a plane, whatever comes in.

    Before weight and bias, e_i = w_i x_i + b_i, the x_i of a layer norm add up to 0: sum(e_i / w_i) = sum(b_i / w_i).

    Returns:
        (D,), float64.

    Raises:
        Hand1000Error: the plane goes through the origin, as nearly as makes no difference.
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
    """The LoRA that turns the base model into this one.

    Args:
        pipeline: of a model whose UNet has its adapter merged.
        adapter: the folder that keeps it by itself, as `lora.save_adapter` wrote it.
        mu: weight of the text embedding against the fused one; fixed in the result.
        gesture: of the model's; fixed in the result too.

    Returns:
        `lora_unet_<layer>.lora_down.weight`, `.lora_up.weight` and `.alpha` of each layer, float32 on the CPU.

    Raises:
        Hand1000Error: the model's fusion cannot be folded.
    """
    with safe_open(adapter / ADAPTER_FILE, "pt") as file:
        settings = json.loads(file.metadata()["lora_adapter_metadata"])
        factors = {name.removeprefix("unet."): file.get_tensor(name).cpu() for name in file.keys()}  # noqa: SIM118
    alpha, rank = settings["unet.lora_alpha"], settings["unet.r"]
    scale = alpha / rank
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
    """Down (R, in) and up (out, R) with up @ down = `difference`, R as small as that allows."""
    left, values, right = torch.linalg.svd(difference, full_matrices=False)
    rank = max(1, int((values > SINGULAR_VALUE_TOLERANCE * values[0]).sum()))
    root = values[:rank].sqrt()
    return root[:, None] * right[:rank], left[:, :rank] * root


def _kohya_entries(name: str, down: torch.Tensor, up: torch.Tensor, alpha: int) -> Tensors:
    """The entries of a layer to which up @ down is added. Programs multiply by alpha / rank, so `up` is divided by it.

    One `alpha` for all layers, whatever their rank: diffusers 0.42 takes the first one's for all.
    """
    prefix = "lora_unet_" + name.replace(".", "_")
    return {
        f"{prefix}.lora_down.weight": down.float().contiguous(),
        f"{prefix}.lora_up.weight": (up * (len(down) / alpha)).float().contiguous(),
        f"{prefix}.alpha": torch.tensor(float(alpha)),
    }
