"""Tuned models of a tiny backbone, and the images that they and their exports draw."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hand1000.config.settings import LoraSettings
from hand1000.models.backbone import Backbone
from hand1000.models.fusion import Fusion, GestureFusion
from hand1000.models.low_rank_fusion import LowRankFusion
from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline
from hand1000.training.checkpoint import trainable_parameters
from hand1000.training.lora import add_adapter, merge_adapter, save_adapter
from tests.support.tiny_models import TEXTS

EQUAL = 1e-5
"""Largest difference of two equal images before they are rounded to bytes."""

HALF = 4e-3
"""Largest difference when a LoRA is rounded to float16; rounding the denoiser alone makes 2e-3."""

PROMPTS = [TEXTS[0], ""]


def _perturbed(module: torch.nn.Module, generator: torch.Generator) -> Any:
    """The module with other weights, as after a training."""
    for parameter in module.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return module.requires_grad_(False)


def low_rank_fusion(base: Backbone) -> Fusion:
    """A trained fusion of rank 3."""
    generator = torch.Generator().manual_seed(1)
    embeddings = base.encode_text([f"{TEXTS[0]} {word}" for word in ("red", "blue", "a", "wall")]).tokens
    fusion = LowRankFusion(base.text_dim, ("four",), 0, 3)
    fusion.initialize(torch.randn(1, 63, generator=generator), embeddings, generator)
    return _perturbed(fusion, generator)


def gesture_fusion(base: Backbone) -> Fusion:
    """A trained fusion with a constant term."""
    generator = torch.Generator().manual_seed(1)
    fusion = GestureFusion(base.text_dim, ("four",)).initialize(torch.randn(1, 63, generator=generator), generator)
    return _perturbed(fusion, generator)


def save_model(folder: Path, base: Backbone, fusion: Fusion, targets: Sequence[str] = (), **sampler: Any) -> Path:
    """Save a tuned model, with a merged adapter of random weights if `targets` are given."""
    if targets:
        generator = torch.Generator().manual_seed(3)
        add_adapter(base.denoiser, LoraSettings(rank=2, alpha=3, targets=list(targets)), seed=0)
        for parameter in trainable_parameters(base.denoiser).values():
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
        save_adapter(base.denoiser, base.denoiser_name, folder / "lora")
        merge_adapter(base.denoiser)
    Hand1000Pipeline(base, fusion, mu=0.4, guidance_scale=2.5, num_inference_steps=4, **sampler).save_pretrained(folder)
    return folder


def draw(pipeline: Any, **settings: Any) -> np.ndarray:
    """The images of both prompts as the decoder returns them, before they are rounded to bytes."""
    outputs: list[torch.Tensor] = []
    hook = pipeline.vae.decoder.register_forward_hook(lambda _, __, output: outputs.append(output))
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in (7, 8)]
    try:
        pipeline(list(PROMPTS), generator=generators, num_inference_steps=4, **settings)
    finally:
        hook.remove()
    return torch.cat(outputs).numpy()


def largest_difference(first: np.ndarray, second: np.ndarray) -> float:
    """The largest difference of two batches of images."""
    return float(np.abs(first - second).max())
