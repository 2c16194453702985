"""The learning rate schedule and the sampling of timesteps."""

import pytest
import torch

from hand1000.config.pretraining import TrainingSchedule
from hand1000.training.batches import sample_logit_normal_timesteps
from hand1000.training.lr import get_lr


def test_the_learning_rate_rises_then_falls() -> None:
    def rates(lr_scheduler, warmup_steps=2) -> list[float]:
        options = {"learning_rate": 1e-3, "steps": 102, "warmup_steps": warmup_steps}
        schedule = TrainingSchedule(**options, batch_size=1, ema_decay=0, checkpoint_every=1)
        return [get_lr(step, schedule, lr_scheduler) for step in (0, 1, 2, 52, 102)]

    assert rates("cosine") == pytest.approx([0.5e-3, 1e-3, 1e-3, 0.525e-3, 0.05e-3])
    assert rates("constant") == pytest.approx([0.5e-3, 1e-3, 1e-3, 1e-3, 1e-3])
    assert rates("constant", warmup_steps=0) == pytest.approx([1e-3] * 5)


def test_logit_normal_timesteps_are_mostly_in_the_middle() -> None:
    timesteps = torch.cat([sample_logit_normal_timesteps(64, 1000, 1, "unet", step) for step in range(32)])
    assert timesteps.min() >= 0 and timesteps.max() <= 999
    assert ((timesteps > 250) & (timesteps < 750)).float().mean() == pytest.approx(
        0.728, abs=0.04
    )  # A uniform draw has 0.5.
    assert not torch.equal(timesteps[:64], timesteps[64:128])
    assert torch.equal(timesteps[64:128], sample_logit_normal_timesteps(64, 1000, 1, "unet", 1))
    assert not torch.equal(timesteps[:64], sample_logit_normal_timesteps(64, 1000, 1, "base", 0))
