"""Export of an adapter, with the fusion folded in, as a LoRA in kohya's format, which most other programs read.

The derivation is in docs/method.md, "A plain checkpoint".
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hand1000.core.errors import Hand1000Error
from hand1000.export.fold import affine_fusion
from hand1000.export.lora_names import KohyaModel, diffusers_entries, kohya_entries
from hand1000.export.target import Form, Precision
from hand1000.export.transformer_keys import Factors
from hand1000.models.base_model import DEFAULT_BACKBONE
from hand1000.models.low_rank_fusion import LowRankFusion
from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline
from hand1000.training.checkpoint import Tensors
from hand1000.training.lora import Adapter, read_adapter

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


def is_linear(pipeline: Hand1000Pipeline) -> bool:
    """Whether the fusion is linear in e, so that a LoRA holds it without a plane and at any precision."""
    return isinstance(pipeline.fusion, LowRankFusion)


def final_norm(pipeline: Hand1000Pipeline) -> nn.LayerNorm:
    """Return the text encoder's last layer norm, whose output is e."""
    text_encoder: Any = pipeline.text_encoder
    norm: nn.LayerNorm = getattr(text_encoder, "text_model", text_encoder).final_layer_norm
    return norm


@torch.no_grad()
def lora_weights(
    pipeline: Hand1000Pipeline, adapter: Path, mu: float, gesture: str, form: Form
) -> tuple[Tensors, dict[str, str]]:
    """Return the LoRA that turns the base model into this one, for one gesture and one mu, and its file's metadata.

    The form "lora" has kohya's names if there are any; otherwise, and in "lora-diffusers", they are those of diffusers.

    The pipeline has the adapter merged into its denoiser; the folder `adapter` holds it alone, as `save_adapter` wrote
    it.

    Raises:
        Hand1000Error: The adapter is damaged, or no LoRA can hold the model's fusion.
    """
    backbone = pipeline.backbone
    saved = read_adapter(adapter, backbone.denoiser, backbone.denoiser_name)
    merge = _merge_exactly if is_linear(pipeline) else _merge_on_plane
    layers = merge(pipeline, saved, mu, gesture)
    if form == "lora-diffusers" or not isinstance(backbone.denoiser, KohyaModel):
        return diffusers_entries(layers, backbone.denoiser_name)
    return kohya_entries(backbone.denoiser, layers, saved.rank)


def _merge_exactly(pipeline: Hand1000Pipeline, adapter: Adapter, mu: float, gesture: str) -> dict[str, Factors]:
    """Return the change of each layer for a fusion that is linear in e, h = (I + Q P) e.

    A cross-attention's W + s B A becomes (W + s B A)(I + Q P), so that the factors are [s B, (W + s B A) Q] and [A; P].
    """
    affine_fusion(pipeline, mu, gesture)
    left, right = pipeline.fusion.factors(gesture)
    layers = _adapter_layers(adapter)
    for name, weight in _text_weights(pipeline):
        factors = _balance(right, weight @ ((1 - mu) * left))
        layers[name] = _concatenate(layers[name], factors) if name in layers else factors
    return layers


def _merge_on_plane(pipeline: Hand1000Pipeline, adapter: Adapter, mu: float, gesture: str) -> dict[str, Factors]:
    """Return the change of each layer for h = A e + c, where all e are on one plane."""
    matrix, shift = affine_fusion(pipeline, mu, gesture)
    if pipeline.backbone.name != DEFAULT_BACKBONE:
        raise Hand1000Error(
            f"this model's fusion has a constant term, which a LoRA for {pipeline.backbone.title} cannot hold; choose "
            "--to diffusers or single-file, or train with stage2.fusion: low_rank"
        )
    # A constant in the keys changes no attention weight, so only the values carry c.
    value_matrix = matrix + torch.outer(shift, constant_direction(final_norm(pipeline)))
    layers = _adapter_layers(adapter)
    for name, tuned in _text_weights(pipeline):
        base = tuned
        if name in layers:
            down, up = (adapter.factors[f"{name}.lora_{side}.weight"].double() for side in "AB")
            base = tuned - adapter.alpha / adapter.rank * up @ down
        folded = tuned @ (value_matrix if name.endswith("to_v") else matrix)
        layers[name] = _svd_factorize(folded - base)
    return layers


def _adapter_layers(adapter: Adapter) -> dict[str, Factors]:
    """Return A and s B of the adapter's layers by name."""
    names = [name.removesuffix(".lora_A.weight") for name in adapter.factors if name.endswith(".lora_A.weight")]
    scale = adapter.alpha / adapter.rank
    down, up = ([adapter.factors[f"{name}.lora_{side}.weight"] for name in names] for side in "AB")
    return {name: (a, b * scale) for name, a, b in zip(names, down, up, strict=True)}


def _text_weights(pipeline: Hand1000Pipeline) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the name and the weight, float64, of each layer that reads the text embeddings."""
    backbone = pipeline.backbone
    for name, module in backbone.denoiser.named_modules():
        if name.endswith(backbone.text_layers):
            yield name, module.weight.double().cpu()


def _balance(down: torch.Tensor, up: torch.Tensor) -> Factors:
    """Make the rows of `down` and the columns of `up` equally long, so that half precision rounds both alike."""
    ratio = (up.norm(dim=0) / down.norm(dim=1)).sqrt()
    ratio[~ratio.isfinite() | (ratio == 0)] = 1.0
    return down * ratio[:, None], up / ratio


def _concatenate(first: Factors, second: Factors) -> Factors:
    (down, up), (more_down, more_up) = first, second
    return torch.cat([down.double(), more_down]), torch.cat([up.double(), more_up], dim=1)


def _svd_factorize(difference: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Factorize (out, in) into down (R, in) and up (out, R), with up @ down = `difference` and R minimal."""
    left, values, right = torch.linalg.svd(difference, full_matrices=False)
    rank = max(1, int((values > SINGULAR_VALUE_TOLERANCE * values[0]).sum()))
    root = values[:rank].sqrt()
    return root[:, None] * right[:rank], left[:, :rank] * root
