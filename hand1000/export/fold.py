"""The fusion folded into standard weights: stock Stable Diffusion that draws what `Hand1000Pipeline` draws.

The derivation is in docs/method.md, "A plain checkpoint".
"""

import copy

import torch
from diffusers import StableDiffusionPipeline
from torch import nn

from hand1000.core.errors import Hand1000Error
from hand1000.models.fusion import FlatFusion, gesture_indices
from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline

MAX_CONDITION_NUMBER = 1e4
"""Above this condition number of A its inverse, kept in 32 bits, would move the pictures."""


def gesture_to_fold(pipeline: Hand1000Pipeline, gesture: str | None) -> str:
    """The gesture that is to be folded in: the one asked for, else the model's only one.

    Raises:
        Hand1000Error: the model holds no fusion, not this gesture, or several of which none is asked for.
    """
    if pipeline.fusion is None:
        raise Hand1000Error("this model holds no fusion: its parts are plain Stable Diffusion already")
    known = pipeline.fusion.gestures
    if gesture is None and len(known) > 1:
        raise Hand1000Error(f"gesture: this model knows {', '.join(known)}; name the one to be folded in")
    chosen = known[0] if gesture is None else gesture
    gesture_indices(pipeline.fusion, [chosen])
    return chosen


def affine_fusion(pipeline: Hand1000Pipeline, mu: float, gesture: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A and c with mu*e + (1 - mu)*g(e) = A e + c for every token e and one gesture.

    Returns:
        A (D, D) and c (D,), float64.

    Raises:
        Hand1000Error: the model's fusion is no such map.
    """
    fusion = pipeline.fusion
    if isinstance(fusion, FlatFusion) or not pipeline.config.fuse_null_prompt:
        raise Hand1000Error(
            "this model's fusion is the authors', which is not one map of every token and of the empty prompt; "
            "it cannot be folded"
        )
    feature = fusion.features[fusion.gestures.index(gesture)]
    weight, bias, feature = (part.double().cpu() for part in (fusion.linear.weight, fusion.linear.bias, feature))
    of_text, of_feature = weight.detach().split([fusion.config.text_dim, len(feature)], dim=1)
    identity = torch.eye(len(of_text), dtype=torch.float64)
    return mu * identity + (1 - mu) * of_text, (1 - mu) * (of_feature @ feature + bias.detach())


@torch.no_grad()
def fold_fusion(pipeline: Hand1000Pipeline, mu: float, gesture: str) -> StableDiffusionPipeline:
    """Stock Stable Diffusion whose pictures of one gesture are `pipeline`'s, for equal seeds, without autoguidance.

    Args:
        pipeline: left as it is; its UNet and text encoder are copied.
        mu: weight of the text embedding against the fused one; fixed in the result.
        gesture: of the model's, see `gesture_to_fold`; fixed in the result too.

    Raises:
        Hand1000Error: the model's fusion cannot be folded, or its map can hardly be inverted.
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
    last: nn.LayerNorm = getattr(text_encoder, "text_model", text_encoder).final_layer_norm
    last.bias.add_(torch.linalg.solve(matrix, shift).to(last.bias))
    return StableDiffusionPipeline(
        pipeline.vae,
        text_encoder,
        pipeline.tokenizer,
        unet,
        pipeline.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
