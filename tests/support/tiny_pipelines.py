"""Pipelines of the tiny model with untrained fusions."""

import numpy as np
import torch

from hand1000.models.fusion import GestureFusion
from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline, build_pipeline
from tests.support.tiny_models import WIDTH, tiny_base

SAMPLER = {"mu": 0.3, "guidance_scale": 3.0, "autoguidance_scale": 1.0, "eta": 0.5, "num_inference_steps": 3}


def fusion_of(*gestures: str, strong: bool = False) -> GestureFusion:
    """Return a fusion of gestures; in a strong one f matters as much as e, even if there is only one gesture."""
    features = [torch.randn(63, generator=torch.Generator().manual_seed(len(gesture))) for gesture in gestures]
    fusion = GestureFusion(WIDTH, gestures).initialize(torch.stack(features), torch.Generator().manual_seed(2))
    if strong:
        with torch.no_grad():
            fusion.linear.weight[:, WIDTH:] = 0.3 * torch.randn(WIDTH, 63, generator=torch.Generator().manual_seed(3))
            fusion.linear.bias.zero_()
    return fusion.requires_grad_(False)


def pipeline_of(*gestures: str, strong: bool = False) -> Hand1000Pipeline:
    """Return the tiny base model with a fusion of gestures."""
    pipeline = build_pipeline(tiny_base(), fusion=fusion_of(*gestures, strong=strong), **SAMPLER)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generators(*seeds: int) -> list[torch.Generator]:
    """Return one generator per seed."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def generate_array(pipeline: Hand1000Pipeline, prompts: list[str], seeds: list[int], **options: object) -> np.ndarray:
    """Return the images of the prompts, (B, H, W, 3), as integers."""
    return pipeline(prompts, generator=generators(*seeds), output_type="np", **options).images.astype(int)
