"""Learning rates and noise levels over a training."""

import pytest
import torch

from hand1000.training.lr import get_lr, sample_logit_normal_timesteps


def test_the_learning_rate_rises_then_falls() -> None:
    def rates(decay, warmup_steps=2) -> list[float]:
        return [
            get_lr(step, peak=1e-3, steps=102, warmup_steps=warmup_steps, decay=decay) for step in (0, 1, 2, 52, 102)
        ]

    assert rates("cosine") == pytest.approx([0.5e-3, 1e-3, 1e-3, 0.525e-3, 0.05e-3])
    assert rates("constant") == pytest.approx([0.5e-3, 1e-3, 1e-3, 1e-3, 1e-3])
    assert rates("constant", warmup_steps=0) == pytest.approx([1e-3] * 5)


def test_timesteps_are_drawn_anew_each_step_and_lie_mostly_in_the_middle() -> None:
    drawn = torch.cat([sample_logit_normal_timesteps(64, 1000, 1, "unet", step) for step in range(32)])
    assert drawn.min() >= 0 and drawn.max() <= 999
    assert ((drawn > 250) & (drawn < 750)).float().mean() == pytest.approx(0.728, abs=0.04)  # Of a uniform draw: 0.5.
    assert not torch.equal(drawn[:64], drawn[64:128])
    assert torch.equal(drawn[64:128], sample_logit_normal_timesteps(64, 1000, 1, "unet", 1))
    assert not torch.equal(drawn[:64], sample_logit_normal_timesteps(64, 1000, 1, "base", 0))
