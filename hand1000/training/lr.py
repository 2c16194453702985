"""The learning rate schedule."""

import math
from typing import Literal

MIN_LR_RATIO = 0.05
"""Learning rate at the end of a cosine schedule, relative to the peak."""


def get_lr(
    step: int, *, peak: float, steps: int, warmup_steps: int, lr_scheduler: Literal["constant", "cosine"]
) -> float:
    """The learning rate of one step; it follows from the step's number, so nothing needs to be saved.

    Args:
        step: Step to be made, counted from 0.
        peak: Highest learning rate, reached at the end of the warm-up.
        steps: Steps of the whole training.
        warmup_steps: Steps of the linear warm-up.
        lr_scheduler: Constant after the warm-up, or a cosine down to `MIN_LR_RATIO` of the peak.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    if lr_scheduler == "constant":
        return peak
    progress = min(1.0, (step - warmup_steps) / max(1, steps - warmup_steps))
    return peak * (MIN_LR_RATIO + (1 - MIN_LR_RATIO) * 0.5 * (1 + math.cos(math.pi * progress)))
