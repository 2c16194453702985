"""DDIM sampling (Song et al., 2020, arXiv 2010.02502), in steps that follow the schedule of timesteps.

diffusers' `DDIMScheduler` takes every step over `num_train_timesteps // num_inference_steps` timesteps, wherever the
next one is. Where the division is exact both give the same bits.

Notation, as in the paper:
    a_t      product of the alphas up to timestep t
    x_t      noisy latents
    x_0      predicted clean latents
    sigma_t  standard deviation of the fresh noise, equation 16
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler
from diffusers.utils.torch_utils import randn_tensor

from hand1000.config.sampler import SamplerName
from hand1000.core.errors import Hand1000Error
from hand1000.models.noise_schedule import make_noise_scheduler
from hand1000.models.schedule import NoiseSchedule, Sampling, Timestep
from hand1000.models.solvers import SolverSampling, make_solver, stock_solver_steps

MIN_START = 0.9
"""Share of the noise schedule at which sampling starts at the earliest: before, latents are not pure noise."""


def sampling_timesteps(scheduler: DDIMScheduler, num_inference_steps: int) -> list[int]:
    """Return the timesteps of a sampling, from the noisiest on, all different.

    Spacing "leading" starts a stride or two before the noisy end, as in diffusers. Where that leaves out more than two
    strides or a tenth of the schedule, or is beyond its end, as with 1, 400, 600 or 1,000 of 1,000 steps, "trailing"
    replaces it, which starts at the end.

    Raises:
        Hand1000Error: More steps than the schedule has timesteps.
    """
    check_num_steps(scheduler, num_inference_steps)
    total = scheduler.config.num_train_timesteps
    if scheduler.config.timestep_spacing == "leading":
        stride, offset = total // num_inference_steps, scheduler.config.steps_offset
        first = (num_inference_steps - 1) * stride + offset
        if max(MIN_START * total, total - 2 * stride) <= first < total:
            return [first - stride * index for index in range(num_inference_steps)]
    # The timesteps of diffusers, without the one too many that rounding adds for 62 of 1,000 numbers of steps.
    ends = np.arange(total, 0, -total / num_inference_steps)[:num_inference_steps]
    return (np.round(ends).astype(int) - 1).tolist()


def check_num_steps(scheduler: DDIMScheduler, num_inference_steps: int) -> None:
    """Raise a Hand1000Error if the schedule has fewer timesteps than steps are asked for."""
    total = scheduler.config.num_train_timesteps
    if not 1 <= num_inference_steps <= total:
        raise Hand1000Error(
            f"num_inference_steps: {num_inference_steps} is out of range; this model's noise schedule has {total} "
            f"timesteps, so choose 1 to {total}"
        )


def ddim_step(
    scheduler: DDIMScheduler,
    model_pred: torch.Tensor,
    latents: torch.Tensor,
    timesteps: tuple[int, int | None],
    *,
    eta: float = 0.0,
    generator: torch.Generator | list[torch.Generator] | None = None,
) -> torch.Tensor:
    """Compute the latents at the next timestep, (B, C, h, w), from those at the present one (equation 12).

    Args:
        scheduler: Noise schedule and prediction type.
        model_pred: The UNet's prediction, (B, C, h, w).
        latents: Noisy latents, (B, C, h, w).
        timesteps: The present timestep and the next one, None after the last.
        eta: Share of fresh noise, 0 to 1.
        generator: Source of the fresh noise, one or one per image.
    """
    present, following = timesteps
    alpha = scheduler.alphas_cumprod[present]
    next_alpha = scheduler.final_alpha_cumprod if following is None else scheduler.alphas_cumprod[following]
    if scheduler.config.prediction_type == "epsilon":
        x_0 = (latents - (1 - alpha) ** 0.5 * model_pred) / alpha**0.5
        noise_pred = model_pred
    else:
        x_0 = alpha**0.5 * latents - (1 - alpha) ** 0.5 * model_pred
        noise_pred = alpha**0.5 * model_pred + (1 - alpha) ** 0.5 * latents
    sigma = eta * ((1 - next_alpha) / (1 - alpha) * (1 - alpha / next_alpha)) ** 0.5
    # With eta = 1 from pure noise the difference is 0, which rounding may make negative, and its root NaN.
    direction = (1 - next_alpha - sigma**2).clamp(min=0) ** 0.5 * noise_pred
    next_latents = next_alpha**0.5 * x_0 + direction
    if eta > 0:
        shape, device, dtype = model_pred.shape, model_pred.device, model_pred.dtype
        next_latents = next_latents + sigma * randn_tensor(shape, generator=generator, device=device, dtype=dtype)
    return next_latents


def stock_sampling_steps(scheduler: DDIMScheduler, num_inference_steps: int) -> int:
    """Return the number of steps nearest to `num_inference_steps` in which diffusers samples as `ddim_step` does."""
    total = scheduler.config.num_train_timesteps
    stock = DDIMScheduler.from_config(scheduler.config)

    def is_equal(steps: int) -> bool:
        if not 1 <= steps <= total:
            return False
        stock.set_timesteps(steps)
        timesteps, stride = sampling_timesteps(scheduler, steps), total // steps
        following: Sequence[int] = [timestep - stride for timestep in timesteps]
        return stock.timesteps.tolist() == timesteps and following[:-1] == timesteps[1:] and following[-1] < 0

    return next(
        steps
        for distance in range(total)
        for steps in (num_inference_steps + distance, num_inference_steps - distance)
        if is_equal(steps)
    )


class DDIMSchedule(NoiseSchedule):
    """The noise schedule of a diffusion model that predicts the noise or the velocity."""

    def __init__(self, scheduler: DDIMScheduler) -> None:
        self.scheduler = scheduler
        self.num_train_timesteps: int = scheduler.config.num_train_timesteps
        self._predicts_velocity = scheduler.config.prediction_type == "v_prediction"

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """See `NoiseSchedule`."""
        noisy: torch.Tensor = self.scheduler.add_noise(latents, noise, timesteps)
        return noisy

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """See `NoiseSchedule`."""
        return self.scheduler.get_velocity(latents, noise, timesteps) if self._predicts_velocity else noise

    def snr(self, timesteps: torch.Tensor) -> torch.Tensor:
        """See `NoiseSchedule`. Unlike diffusers' `compute_snr`, it is not rounded through square roots."""
        alphas_cumprod = self.scheduler.alphas_cumprod.to(timesteps.device)[timesteps]
        return alphas_cumprod / (1 - alphas_cumprod)

    def loss_ratio(self, timesteps: torch.Tensor) -> torch.Tensor:
        """See `NoiseSchedule`."""
        snr = self.snr(timesteps)
        return snr + 1 if self._predicts_velocity else snr

    def sampling_timesteps(self, num_inference_steps: int) -> list[Timestep]:
        """See `NoiseSchedule`."""
        return list(sampling_timesteps(self.scheduler, num_inference_steps))

    def step(
        self,
        model_pred: torch.Tensor,
        latents: torch.Tensor,
        timesteps: tuple[Timestep, Timestep | None],
        *,
        eta: float = 0.0,
        generator: Any = None,
    ) -> torch.Tensor:
        """See `NoiseSchedule`."""
        present, following = timesteps
        integers = (int(present), None if following is None else int(following))
        return ddim_step(self.scheduler, model_pred, latents, integers, eta=eta, generator=generator)

    def start_sampling(self, sampler: SamplerName, num_inference_steps: int, eta: float) -> Sampling:
        """See `NoiseSchedule`."""
        if sampler == "ddim":
            return super().start_sampling(sampler, num_inference_steps, eta)
        check_num_steps(self.scheduler, num_inference_steps)
        return SolverSampling(sampler, self.scheduler, num_inference_steps)

    def stock_scheduler(self, sampler: SamplerName = "ddim") -> Any:
        """See `NoiseSchedule`."""
        if sampler == "ddim":
            return make_noise_scheduler(self.scheduler.config)
        return make_solver(sampler, self.scheduler)

    def stock_sampling_steps(self, num_inference_steps: int, sampler: SamplerName = "ddim") -> int:
        """See `NoiseSchedule`."""
        if sampler == "ddim":
            return stock_sampling_steps(self.scheduler, num_inference_steps)
        return stock_solver_steps(sampler, self.scheduler, num_inference_steps)
