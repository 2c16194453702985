"""Folding of the fusion into the weights of a stock model, which then generates the same images.

The derivation is in docs/method.md, "A plain checkpoint".
"""

from typing import Any

import torch

from hand1000.core.errors import Hand1000Error
from hand1000.models.flat_fusion import FlatFusion
from hand1000.models.fusion import gesture_indices
from hand1000.models.low_rank_fusion import LowRankFusion
from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline


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
    if isinstance(fusion, LowRankFusion):
        left, right = fusion.factors(gesture)
        return torch.eye(len(left), dtype=torch.float64) + (1 - mu) * left @ right, torch.zeros(len(left)).double()
    feature = fusion.features[fusion.gestures.index(gesture)]
    weight, bias, feature = (part.double().cpu() for part in (fusion.linear.weight, fusion.linear.bias, feature))
    text_weight, feature_weight = weight.detach().split([fusion.config.text_dim, len(feature)], dim=1)
    identity = torch.eye(len(text_weight), dtype=torch.float64)
    return mu * identity + (1 - mu) * text_weight, (1 - mu) * (feature_weight @ feature + bias.detach())


def fold_fusion(pipeline: Hand1000Pipeline, mu: float, gesture: str) -> Any:
    """Turn a pipeline into a stock pipeline of diffusers that generates its images of one gesture.

    It has no autoguidance. The weights of the pipeline's own denoiser are changed, so that it is never held twice;
    afterwards the pipeline itself can no longer be used.

    Raises:
        Hand1000Error: The model's fusion cannot be folded.
    """
    backbone = pipeline.backbone
    backbone.fold(*affine_fusion(pipeline, mu, gesture))
    stock = backbone.stock_pipeline()
    stock.scheduler = backbone.schedule.stock_scheduler(pipeline.config.sampler)
    return stock
