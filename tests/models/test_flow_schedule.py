"""The schedule of a flow model against its formulas and diffusers' scheduler."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from hand1000.core.errors import Hand1000Error
from hand1000.models.flow_schedule import FlowSchedule, make_flow_scheduler
from hand1000.training.losses import min_snr_loss_weights

CONFIG = {"num_train_timesteps": 1000, "shift": 3.0}
SCHEDULE = FlowSchedule(make_flow_scheduler(CONFIG))


def test_training_timesteps_are_those_of_diffusers() -> None:
    stock = FlowMatchEulerDiscreteScheduler(**CONFIG)
    timesteps = SCHEDULE.to_timesteps(torch.arange(1000))
    assert torch.allclose(timesteps, stock.timesteps.flip(0), rtol=1e-6) and timesteps.dtype == torch.float32
    assert timesteps[-1] == 1000 and 0 < timesteps[0] < 3.1 and (timesteps.diff() > 0).all()
    unshifted = FlowSchedule(make_flow_scheduler(CONFIG | {"shift": 1}))
    assert torch.allclose(unshifted.to_timesteps(torch.tensor([0, 499])), torch.tensor([1.0, 500.0]))


def test_noise_target_and_weights_follow_the_formulas() -> None:
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 3, 4, 4, 4, generator=generator)
    timesteps = torch.tensor([1000.0, 500.0, 250.0])
    noisy = SCHEDULE.add_noise(latents, noise, timesteps)
    expected = [(1 - share) * latents[row] + share * noise[row] for row, share in enumerate((1.0, 0.5, 0.25))]
    assert torch.allclose(noisy, torch.stack(expected))
    assert torch.equal(SCHEDULE.target(latents, noise, timesteps), noise - latents)
    assert torch.allclose(SCHEDULE.snr(timesteps), torch.tensor([0.0, 1.0, 9.0]))
    assert torch.allclose(SCHEDULE.loss_ratio(timesteps), torch.tensor([1.0, 4.0, 16.0]))
    assert torch.allclose(min_snr_loss_weights(SCHEDULE, timesteps, 5.0), torch.tensor([0.0, 1 / 4, 5 / 16]))
    scale = SCHEDULE.loss_ratio(timesteps)[:, None, None, None]
    velocity_error = torch.randn(latents.shape, generator=generator)
    clean = noisy - (timesteps / 1000)[:, None, None, None] * (noise - latents + velocity_error)
    assert torch.allclose((clean - latents).square() * scale, velocity_error.square(), atol=1e-3)
    assert [SCHEDULE.noise_share(time) for time in (1000.0, 501.0, 0.5)] == [0.999, 0.5, 0.0]


@pytest.mark.parametrize("steps", [1, 4, 28])
def test_sampling_equals_diffusers_scheduler(steps: int) -> None:
    stock, generator = FlowMatchEulerDiscreteScheduler(**CONFIG), torch.Generator().manual_seed(0)
    stock.set_timesteps(steps)
    sampling = SCHEDULE.start_sampling("ddim", steps, 0.0)
    assert sampling.timesteps == stock.timesteps.tolist() and len(set(sampling.timesteps)) == steps
    latents = expected = torch.randn(2, 4, 8, 8, generator=generator)
    for index, timestep in enumerate(stock.timesteps):
        prediction = torch.randn(latents.shape, generator=generator)
        latents = sampling.step(prediction, latents, index)
        expected = stock.step(prediction, timestep, expected, return_dict=False)[0]
    assert torch.allclose(latents, expected, atol=2e-6)
    assert SCHEDULE.stock_sampling_steps(steps) == steps
    assert SCHEDULE.stock_scheduler().config.shift == 3.0


def test_evenly_spaced_levels_may_be_shifted_once() -> None:
    timesteps = FlowSchedule(make_flow_scheduler(CONFIG), shifts_once=True).sampling_timesteps(4)
    assert timesteps == pytest.approx([3000 * u / (1 + 2 * u) for u in (1.0, 0.75, 0.5, 0.25)], rel=1e-6)


def test_the_last_step_of_the_true_velocity_ends_at_the_image() -> None:
    latents, noise = torch.randn(2, 1, 4, 8, 8)
    sampling, present = SCHEDULE.start_sampling("ddim", 7, 0.0), noise
    for index in range(7):
        present = sampling.step(noise - latents, present, index)
    assert torch.allclose(present, latents, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"beta_start": 0.1}, "has no shift; choose a flow-matching model"),
        (CONFIG | {"shift": float("nan")}, "shift is nan, not above 0 to 100"),
        (CONFIG | {"shift": "3"}, "shift is '3', not above 0"),
        (CONFIG | {"num_train_timesteps": 0}, "num_train_timesteps is 0, not 1 to"),
        (CONFIG | {"use_dynamic_shifting": True}, "sets use_dynamic_shifting; choose a model with a constant shift"),
    ],
)
def test_other_configs_are_refused_in_one_line(config: dict, message: str) -> None:
    with pytest.raises(Hand1000Error, match=f"models/x: .*{message}"):
        make_flow_scheduler(config, "models/x")


def test_what_a_flow_model_does_not_have_is_refused() -> None:
    with pytest.raises(Hand1000Error, match="eta: 0.5 adds fresh noise, .* choose 0"):
        SCHEDULE.start_sampling("ddim", 4, 0.5)
    with pytest.raises(Hand1000Error, match="sampler: unipc is for diffusion models only; choose ddim"):
        SCHEDULE.start_sampling("unipc", 4, 0.0)
    with pytest.raises(Hand1000Error, match="num_inference_steps: 1001 is out of range"):
        SCHEDULE.start_sampling("ddim", 1001, 0.0)
