"""Export of an adapter, with the fusion folded in, as a LoRA in kohya's format, which most other programs read.

The derivation is in docs/method.md, "A plain checkpoint".
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from hand1000.core.errors import Hand1000Error
from hand1000.export.fold import affine_fusion
from hand1000.export.target import Precision
from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline
from hand1000.training.checkpoint import Tensors
from hand1000.training.lora import read_adapter

SINGULAR_VALUE_TOLERANCE = 1e-7
"""Singular values below this share of the largest one are dropped: they change nothing in 32 bits."""

MAX_SHIFT_ERROR = 0.01
"""Relative rounding error of the gesture's shift above which an export as LoRA is refused."""


def constant_direction(norm: nn.LayerNorm) -> torch.Tensor:
    """Return the vector v, (D,) float64, with v.e = 1 for every output e of a layer norm: they are all on one plane.

    The normalized inputs x_i of e_i = w_i x_i + b_i add up to 0, so that sum(e_i / w_i) = sum(b_i / w_i).
    """
    weight, bias = norm.weight.detach().double().cpu(), norm.bias.detach().double().cpu()
    return 1 / (weight * (bias / weight).sum())


def shift_error(norm: nn.LayerNorm, precision: Precision) -> float:
    """Estimate by how much of its length the gesture's shift changes when v is rounded to a type of numbers.

    The nearer the plane of the outputs is to the origin, the longer is v, and v.e is 1 as a small difference of large
    terms. The estimate takes them as independent; the RMS of x_i is 1.
    """
    weight, bias = norm.weight.detach().double().cpu(), norm.bias.detach().double().cpu()
    terms = constant_direction(norm).square() * (weight.square() + bias.square())
    return float(terms.sum().sqrt()) * torch.finfo(getattr(torch, precision)).eps


def check_precision(norm: nn.LayerNorm, precision: Precision) -> None:
    """Check that a LoRA can carry the gesture's shift.

    Raises:
        Hand1000Error: The rounding changes the shift by more than `MAX_SHIFT_ERROR`.
    """
    error = shift_error(norm, precision)
    if not error <= MAX_SHIFT_ERROR:
        remedy = "--to diffusers or single-file" if precision == "float32" else "--dtype float32"
        raise Hand1000Error(
            f"the bias of the text encoder's last layer norm is too small for a LoRA in {precision}: rounding would "
            f"change the gesture's shift by {error:.2g} of its length, at most {MAX_SHIFT_ERROR:g}; choose {remedy}"
        )


def final_norm(pipeline: Hand1000Pipeline) -> nn.LayerNorm:
    """Return the text encoder's last layer norm, whose output is e."""
    text_encoder: Any = pipeline.text_encoder
    norm: nn.LayerNorm = getattr(text_encoder, "text_model", text_encoder).final_layer_norm
    return norm


@torch.no_grad()
def kohya_weights(pipeline: Hand1000Pipeline, adapter: Path, mu: float, gesture: str) -> Tensors:
    """Return the LoRA that turns the base model into this one, for one gesture and one mu.

    The pipeline has the adapter merged into its UNet; the folder `adapter` holds it alone, as `save_adapter` wrote it.
    The entries of each layer are `lora_unet_<layer>.lora_down.weight`, `.lora_up.weight` and `.alpha`.

    Raises:
        Hand1000Error: The adapter is damaged, or the model's fusion cannot be folded.
    """
    saved = read_adapter(adapter, pipeline.unet)
    rank, factors = saved.rank, saved.factors
    scale = saved.alpha / rank
    matrix, shift = affine_fusion(pipeline, mu, gesture)
    # A constant in the keys changes no attention weight, so only the values carry c.
    value_matrix = matrix + torch.outer(shift, constant_direction(final_norm(pipeline)))
    weights: Tensors = {}
    for name, module in pipeline.unet.named_modules():
        down, up = (factors.get(f"{name}.lora_{side}.weight") for side in "AB")
        if name.endswith(("attn2.to_k", "attn2.to_v")):
            tuned = base = module.weight.double().cpu()
            if down is not None and up is not None:
                base = tuned - scale * up.double() @ down.double()
            folded = tuned @ (value_matrix if name.endswith("to_v") else matrix)
            down, up = _svd_factorize(folded - base)
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
