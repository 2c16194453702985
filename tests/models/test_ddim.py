"""DDIM sampling: timesteps for every number of steps, steps that follow them, and diffusers' bits where it does too."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from hand1000.core.errors import Hand1000Error
from hand1000.models.ddim import MIN_START, ddim_step, sampling_timesteps, stock_sampling_steps
from hand1000.models.noise_schedule import make_noise_scheduler
from hand1000.models.small_base import build_scheduler
from hand1000.pipelines.pipeline_hand1000 import load_pipeline

SD15 = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "timestep_spacing": "leading"}
CONFIGS = {"sd15": SD15, "shipped": dict(build_scheduler().config), "trailing": SD15 | {"timestep_spacing": "trailing"}}
NAMES = sorted(CONFIGS)
FAULTY_STEPS = (1, 2, 3, 45, 61, 103, 400, 501, 600, 999, 1000)
"""Numbers of steps at which diffusers 0.42 leaves one of these schedules, and those at its limits."""


@pytest.mark.parametrize("name", NAMES)
def test_every_number_of_steps_has_a_schedule(name: str) -> None:
    scheduler = make_noise_scheduler(CONFIGS[name])
    for steps in range(1, 1001):
        timesteps = sampling_timesteps(scheduler, steps)
        assert len(timesteps) == steps and timesteps[0] >= MIN_START * 1000
        assert 1000 - timesteps[0] <= 2 * (1000 // steps)
        assert all(
            1000 > first > second >= 0 for first, second in pairwise([*timesteps, 0] if timesteps[-1] else timesteps)
        )


@pytest.mark.parametrize(
    ("name", "steps"), [("shipped", 25), ("shipped", 50), ("sd15", 25), ("sd15", 45), ("sd15", 50)]
)
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_usual_steps_have_the_bits_of_diffusers(name: str, steps: int, eta: float) -> None:
    ours, theirs = (
        make_noise_scheduler(CONFIGS[name]),
        DDIMScheduler.from_config(CONFIGS[name], clip_sample=False, set_alpha_to_one=False, steps_offset=1),
    )
    theirs.set_timesteps(steps)
    timesteps = sampling_timesteps(ours, steps)
    assert theirs.timesteps.tolist() == timesteps
    latents = expected = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    sources = [[torch.Generator().manual_seed(seed) for seed in (1, 2)] for _ in range(2)]
    for present, following in pairwise([*timesteps, None]):
        model_pred = torch.randn(latents.shape, generator=torch.Generator().manual_seed(present))
        latents = ddim_step(ours, model_pred, latents, (present, following), eta=eta, generator=sources[0])
        expected = theirs.step(model_pred, present, expected, eta=eta, generator=sources[1]).prev_sample
        assert torch.equal(latents, expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_samples_have_the_distribution_of_the_data(name: str, eta: float) -> None:
    """The ideal denoiser of normal data, mean 2 and deviation 0.5, samples such data or, in few steps, its mean."""
    scheduler = make_noise_scheduler(CONFIGS[name])
    mean, deviation = 2.0, 0.5
    for steps in FAULTY_STEPS:
        latents = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(0))
        noise = torch.Generator().manual_seed(1)
        for present, following in pairwise([*sampling_timesteps(scheduler, steps), None]):
            alpha = scheduler.alphas_cumprod[present]
            gain = deviation**2 * alpha**0.5 / (deviation**2 * alpha + 1 - alpha)
            clean = mean + gain * (latents - alpha**0.5 * mean)
            model_pred = (latents - alpha**0.5 * clean) / (1 - alpha) ** 0.5
            if scheduler.config.prediction_type == "v_prediction":
                model_pred = alpha**0.5 * model_pred - (1 - alpha) ** 0.5 * clean
            latents = ddim_step(scheduler, model_pred, latents, (present, following), eta=eta, generator=noise)
        assert abs(float(latents.mean()) - mean) < 0.1, steps
        low, high = (0.4, 0.6) if steps > 40 else (0.0, 0.7)
        assert low < float(latents.std()) < high, steps


def test_more_steps_than_timesteps_are_refused() -> None:
    short = make_noise_scheduler(SD15 | {"num_train_timesteps": 500})
    assert sampling_timesteps(short, 500) == list(range(499, -1, -1))
    for steps in (0, 501):
        with pytest.raises(Hand1000Error, match=f"num_inference_steps: {steps} is out of range; .* choose 1 to 500"):
            sampling_timesteps(short, steps)


def test_steps_for_other_programs_are_those_of_diffusers() -> None:
    sd15, shipped = (make_noise_scheduler(CONFIGS[name]) for name in ("sd15", "shipped"))
    assert [stock_sampling_steps(sd15, steps) for steps in (45, 50, 400, 1000)] == [45, 50, 333, 500]
    assert [stock_sampling_steps(shipped, steps) for steps in (25, 45, 61, 1000)] == [25, 50, 50, 1000]


def test_the_small_base_model_draws_in_any_number_of_steps() -> None:
    pipeline = load_pipeline(Path(__file__).parents[2] / "models" / "small-base")
    prompt = "a photo of a left hand with tan skin and a red sleeve in front of a blue wall"
    for steps in (1, 2, 45, 61):
        generator = torch.Generator().manual_seed(1)
        (image,) = pipeline(
            prompt, guidance_scale=1.0, num_inference_steps=steps, generator=generator, output_type="np"
        ).images
        means = image.astype(float).mean(axis=(0, 1))
        # A blue wall, and neighboring pixels that are alike, as they are neither in noise nor in a black image.
        assert means[2] > means[0] + 10 and means[2] > 60, (steps, means)
        assert np.abs(np.diff(image.astype(float), axis=0)).mean() < 20, steps
