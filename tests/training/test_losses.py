"""The denoising loss and the mask of the hand."""

import pytest
import torch

from hand1000.config.settings import load_settings
from hand1000.models.conditioning import Conditioning
from hand1000.models.stable_diffusion import StableDiffusion
from hand1000.training.batches import NoisyBatch
from hand1000.training.losses import diffusion_loss, hand_loss_mask

DEFAULT = load_settings("default")


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_loss_of_a_perfect_prediction_is_zero(kind: str) -> None:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(prediction_type=kind)
    backbone = StableDiffusion(None, None, None, None, scheduler)
    clean, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    timesteps = torch.tensor([10, 900])
    target = noise if kind == "epsilon" else scheduler.get_velocity(clean, noise, timesteps)

    class Perfect:
        def __call__(self, noisy, at, condition):
            return type("Output", (), {"sample": target + torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1)})

    batch = NoisyBatch(clean, Conditioning(torch.zeros(2, 1, 1)), noise, timesteps)

    def losses(pixel_weights: torch.Tensor | None = None) -> torch.Tensor:
        options = {"denoiser": Perfect(), "pixel_weights": pixel_weights}
        return diffusion_loss(backbone, batch, DEFAULT.compute, **options, reduction="none")

    assert torch.allclose(losses(), torch.tensor([0.0, 1.0]), atol=1e-5)
    mean = diffusion_loss(backbone, batch, DEFAULT.compute, denoiser=Perfect())
    assert float(mean) == pytest.approx(0.5, abs=1e-5)
    weights = torch.zeros(2, 1, 8, 8)
    weights[:, :, :2, :2] = 16.0
    assert torch.allclose(losses(weights), torch.tensor([0.0, 1.0]), atol=1e-5)
    weights[1] = 0.0
    assert torch.allclose(losses(weights), torch.zeros(2), atol=1e-5)


def test_hand_loss_mask_weights_the_box_and_has_mean_one() -> None:
    boxes = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.25, 0.0, 0.125, 1.0], [0.0, 0.0, 1.0, 1.0]])
    quarter, narrow, whole = hand_loss_mask(boxes, 4, 4, 3.0)
    assert torch.allclose(quarter[0, :2, :2], torch.tensor(2.0)) and torch.allclose(quarter[0, 2:], torch.tensor(2 / 3))
    # Half of the second column lies inside: 1 + 2 * 0.5 against 1.
    assert torch.allclose(narrow[0, :, 1] / narrow[0, :, 0], torch.tensor(2.0))
    assert torch.allclose(whole, torch.ones(1, 4, 4))
    assert torch.equal(hand_loss_mask(boxes, 4, 4, 1.0), torch.ones(3, 1, 4, 4))
