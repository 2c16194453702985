"""How fast a training learns at each step, and which noise levels it sees."""

import math
from typing import Literal

import torch

from hand1000.core.rng import torch_generator

MIN_LR_RATIO = 0.05
"""Of the peak learning rate, at a cosine's last step."""


def get_lr(step: int, *, peak: float, steps: int, warmup_steps: int, decay: Literal["constant", "cosine"]) -> float:
    """The learning rate of step `step` of `steps`, counted from 0.

    Args:
        step: that is about to be made.
        peak: the highest rate, where the warm-up ends.
        steps: of the whole training.
        warmup_steps: in which the rate rises linearly.
        decay: constant, or down along a cosine to `MIN_LR_RATIO` of the peak.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    if decay == "constant":
        return peak
    progress = min(1.0, (step - warmup_steps) / max(1, steps - warmup_steps))
    return peak * (MIN_LR_RATIO + (1 - MIN_LR_RATIO) * 0.5 * (1 + math.cos(math.pi * progress)))


def sample_logit_normal_timesteps(
    count: int, num_train_timesteps: int, seed: int, stage: str, step: int
) -> torch.Tensor:
    """Timesteps (count,), int64, whose logit is normal (Esser et al., 2024): most where a picture's shapes are decided.

    Half of the timesteps of a uniform draw tell the plain wall's colour or the grain of the skin.
    """
    logits = torch.randn(count, generator=torch_generator(seed, f"{stage}-timesteps", step))
    return (torch.sigmoid(logits) * num_train_timesteps).long().clamp(max=num_train_timesteps - 1)
