"""Folding of the fusion into the weights of plain Stable Diffusion, which then generates the same images.

The derivation is in docs/method.md, "A plain checkpoint".
"""

import copy

import torch
from diffusers import StableDiffusionPipeline
from torch import nn

from hand1000.core.errors import Hand1000Error
from hand1000.models.flat_fusion import FlatFusion
from hand1000.models.fusion import gesture_indices
from hand1000.models.noise_schedule import make_noise_scheduler
from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline

MAX_CONDITION_NUMBER = 1e4
"""Condition number of A above which its inverse, rounded to 32 bits, would change the images."""


def gesture_to_fold(pipeline: Hand1000Pipeline, gesture: str | None) -> str:
    """Return the gesture to fold in: `gesture`, or by default the model's only one.

    Raises:
        Hand1000Error: The model has no fusion, does not know the gesture, or knows several and none is given.
    """
    if pipeline.fusion is None:
        raise Hand1000Error("this model has no fusion: it is plain Stable Diffusion already")
    known = pipeline.fusion.gestures
    if gesture is None and len(known) > 1:
        raise Hand1000Error(f"gesture: this model knows {', '.join(known)}; choose the one to fold in")
    chosen = known[0] if gesture is None else gesture
    gesture_indices(pipeline.fusion, [chosen])
    return chosen


def affine_fusion(pipeline: Hand1000Pipeline, mu: float, gesture: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return A (D, D) and c (D,), float64, with mu*e + (1 - mu)*g(e) = A e + c for every token e and one gesture.

    Raises:
        Hand1000Error: The model's fusion is not an affine map of each token.
    """
    fusion = pipeline.fusion
    if isinstance(fusion, FlatFusion) or not pipeline.config.fuse_null_prompt:
        raise Hand1000Error(
            "this model's fusion cannot be folded: as in the authors' code, it maps all tokens at once or leaves the "
            "null prompt out"
        )
    feature = fusion.features[fusion.gestures.index(gesture)]
    weight, bias, feature = (part.double().cpu() for part in (fusion.linear.weight, fusion.linear.bias, feature))
    text_weight, feature_weight = weight.detach().split([fusion.config.text_dim, len(feature)], dim=1)
    identity = torch.eye(len(text_weight), dtype=torch.float64)
    return mu * identity + (1 - mu) * text_weight, (1 - mu) * (feature_weight @ feature + bias.detach())


@torch.no_grad()
def fold_fusion(pipeline: Hand1000Pipeline, mu: float, gesture: str) -> StableDiffusionPipeline:
    """Return plain Stable Diffusion that generates the pipeline's images of one gesture, without autoguidance.

    Raises:
        Hand1000Error: The model's fusion cannot be folded, or its map is nearly singular.
    """
    matrix, shift = affine_fusion(pipeline, mu, gesture)
    condition = float(torch.linalg.cond(matrix))
    if not condition <= MAX_CONDITION_NUMBER:
        raise Hand1000Error(
            f"mu = {mu}: the fusion's map is nearly singular (condition number {condition:.3g}, at most "
            f"{MAX_CONDITION_NUMBER:g}), so it cannot be folded into the text encoder; choose a mu nearer to 1"
        )
    unet, text_encoder = copy.deepcopy(pipeline.unet), copy.deepcopy(pipeline.text_encoder)
    for name, module in unet.named_modules():
        if name.endswith(("attn2.to_k", "attn2.to_v")):
            module.weight.copy_(module.weight.double().cpu() @ matrix)
    norm: nn.LayerNorm = getattr(text_encoder, "text_model", text_encoder).final_layer_norm
    norm.bias.add_(torch.linalg.solve(matrix, shift).to(norm.bias))
    return StableDiffusionPipeline(
        pipeline.vae,
        text_encoder,
        pipeline.tokenizer,
        unet,
        make_noise_scheduler(pipeline.scheduler.config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
