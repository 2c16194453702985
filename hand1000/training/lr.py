"""The learning rate schedule."""

import math
from typing import Literal

from hand1000.config.pretraining import TrainingSchedule
from hand1000.config.settings import Stage3Settings

MIN_LR_RATIO = 0.05
"""Learning rate at the end of a cosine schedule, relative to the peak."""


def get_lr(
    step: int, settings: Stage3Settings | TrainingSchedule, lr_scheduler: Literal["constant", "cosine"]
) -> float:
    """The learning rate of one step; it follows from the step's number, so nothing needs to be saved.

    Args:
        step: Step to be made, counted from 0.
        settings: Steps of the training and of the linear warm-up, and the learning rate at its end.
        lr_scheduler: Constant after the warm-up, or a cosine down to `MIN_LR_RATIO` of the peak.
    """
    peak, warmup_steps = settings.learning_rate, settings.warmup_steps
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    if lr_scheduler == "constant":
        return peak
    progress = min(1.0, (step - warmup_steps) / max(1, settings.steps - warmup_steps))
    return peak * (MIN_LR_RATIO + (1 - MIN_LR_RATIO) * 0.5 * (1 + math.cos(math.pi * progress)))
