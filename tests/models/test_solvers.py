"""Multistep solvers: diffusers' bits, schedules for every number of steps, and the distribution of the data."""

import numpy as np
import pytest
import torch

from hand1000.core.errors import Hand1000Error
from hand1000.models.ddim import DDIMSchedule
from hand1000.models.noise_schedule import make_noise_scheduler
from hand1000.models.small_base import build_scheduler

SD15 = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "timestep_spacing": "leading"}
ZERO_SNR = SD15 | {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
CONFIGS = {"sd15": SD15, "shipped": dict(build_scheduler().config), "zero-snr": ZERO_SNR}
SOLVERS = ("dpmpp_2m", "dpmpp_2m_sde", "unipc")


def schedule_of(name: str) -> DDIMSchedule:
    return DDIMSchedule(make_noise_scheduler(CONFIGS[name]))


@pytest.mark.parametrize("name", sorted(CONFIGS))
@pytest.mark.parametrize("solver", SOLVERS)
def test_steps_have_the_bits_of_the_stock_scheduler(name: str, solver: str) -> None:
    """A stock pipeline with `stock_scheduler` makes the same steps, with fresh noise of each image's own generator."""
    schedule = schedule_of(name)
    sampling, stock = schedule.start_sampling(solver, 6, 0.0), schedule.stock_scheduler(solver)
    stock.set_timesteps(6)
    assert stock.timesteps.tolist() == sampling.timesteps and sampling.timesteps[0] == 999
    latents = expected = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    sources = [[torch.Generator().manual_seed(seed) for seed in (1, 2)] for _ in range(2)]
    noise = {"generator": sources[1]} if solver == "dpmpp_2m_sde" else {}
    for index, timestep in enumerate(stock.timesteps):
        model_pred = torch.randn(latents.shape, generator=torch.Generator().manual_seed(index))
        latents = sampling.step(model_pred, latents, index, sources[0])
        expected = stock.step(model_pred, timestep, expected, **noise).prev_sample
        assert torch.equal(latents, expected)


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_number_of_steps_ends_at_the_data(solver: str) -> None:
    """The denoiser of one known image reaches it from noise in any number of steps, also where diffusers adds one."""
    schedule = schedule_of("shipped")
    image = torch.linspace(-1, 1, 64).reshape(1, 1, 8, 8)
    for steps in (1, 2, 3, 7, 61, 1000):
        sampling = schedule.start_sampling(solver, steps, 0.0)
        assert len(set(sampling.timesteps)) == steps and min(sampling.timesteps) >= 0
        latents = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        for index, timestep in enumerate(sampling.timesteps):
            alpha = schedule.scheduler.alphas_cumprod[int(timestep)]
            noise = (latents - alpha**0.5 * image) / (1 - alpha) ** 0.5
            latents = sampling.step(alpha**0.5 * noise - (1 - alpha) ** 0.5 * image, latents, index)
        assert (latents - image).abs().max() < 2e-3


@pytest.mark.parametrize("solver", SOLVERS)
def test_samples_have_the_distribution_of_the_data(solver: str) -> None:
    """The ideal denoiser of normal data, mean 2 and deviation 0.5, samples such data in 20 steps."""
    schedule = schedule_of("shipped")
    sampling = schedule.start_sampling(solver, 20, 0.0)
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 1, 100, 100, generator=generator)
    for index, timestep in enumerate(sampling.timesteps):
        alpha = schedule.scheduler.alphas_cumprod[int(timestep)]
        variance = 0.25 * alpha + 1 - alpha
        noise = (1 - alpha) ** 0.5 * (latents - alpha**0.5 * 2) / variance
        clean = 2 + 0.25 * alpha**0.5 * (latents - alpha**0.5 * 2) / variance
        latents = sampling.step(alpha**0.5 * noise - (1 - alpha) ** 0.5 * clean, latents, index, generator)
    assert np.allclose([latents.mean(), latents.std()], [2, 0.5], atol=0.03)


def test_numbers_of_steps_that_diffusers_takes() -> None:
    schedule = schedule_of("shipped")
    assert [schedule.stock_sampling_steps(steps, "unipc") for steps in (1, 8, 61, 1000)] == [1, 8, 62, 1000]
    assert schedule.stock_sampling_steps(61) == 50
    short = DDIMSchedule(make_noise_scheduler(SD15 | {"num_train_timesteps": 10}))
    assert short.stock_sampling_steps(20, "dpmpp_2m") == 10
    with pytest.raises(Hand1000Error, match="num_inference_steps: 11 is out of range"):
        short.start_sampling("dpmpp_2m", 11, 0.0)


def test_the_default_ignores_no_eta() -> None:
    """`ddim` makes the schedule's own steps with the share of noise that it is given; the last one follows nothing."""
    schedule = schedule_of("sd15")
    sampling = schedule.start_sampling("ddim", 4, 0.7)
    latents = expected = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    sources = [torch.Generator().manual_seed(5) for _ in range(2)]
    assert sampling.timesteps == schedule.sampling_timesteps(4)
    for index, timesteps in enumerate(zip(sampling.timesteps, [*sampling.timesteps[1:], None], strict=True)):
        latents = sampling.step(latents, latents, index, sources[0])
        expected = schedule.step(expected, expected, timesteps, eta=0.7, generator=sources[1])
        assert torch.equal(latents, expected)
