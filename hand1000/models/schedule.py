"""The interface of a noise schedule: how training adds noise to latents, and how sampling takes it away.

Notation:
    x       clean, scaled latents                                    (B, C, h, w)
    n       normal noise                                             (B, C, h, w)
    t       timestep, the time that the denoiser is given            (B,)
    x_t     noisy latents: sqrt(a) x + sqrt(1-a) n in a diffusion model, (1-s) x + s n in a flow model
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from hand1000.config.sampler import SamplerName
from hand1000.core.errors import Hand1000Error

if TYPE_CHECKING:
    import torch

Timestep = int | float


class Sampling(ABC):
    """One sampling, from noise to latents, which may keep what its steps need of earlier ones.

    Attributes:
        timesteps: Timestep of each step, from the noisiest on, all different.
    """

    timesteps: list[Timestep]

    @abstractmethod
    def step(
        self, model_pred: "torch.Tensor", latents: "torch.Tensor", index: int, generator: Any = None
    ) -> "torch.Tensor":
        """Compute the latents after a step, (B, C, h, w).

        Args:
            model_pred: The denoiser's prediction at `timesteps[index]`, (B, C, h, w).
            latents: The latents of which it was made, (B, C, h, w).
            index: Number of the step, counted from 0; the steps are made in order.
            generator: Source of the fresh noise, one or one per image.
        """


class NoiseSchedule(ABC):
    """The noise schedule of a backbone.

    Training draws indices from 0, the clean end, to `num_train_timesteps` - 1, keyed by image and step; `to_timesteps`
    makes them the denoiser's timesteps, and every other method takes those. A diffusion model's timesteps are the
    indices themselves; a flow model's may be floats.
    """

    num_train_timesteps: int
    """Number T of noise levels from which training draws; timesteps are at most T."""

    def to_timesteps(self, indices: "torch.Tensor") -> "torch.Tensor":
        """Convert indices, (B,) int64 from 0 to T - 1, to timesteps, (B,); in a flow model through its shift."""
        return indices

    @abstractmethod
    def add_noise(self, latents: "torch.Tensor", noise: "torch.Tensor", timesteps: "torch.Tensor") -> "torch.Tensor":
        """Return x_t of x and n at the timesteps t."""

    @abstractmethod
    def target(self, latents: "torch.Tensor", noise: "torch.Tensor", timesteps: "torch.Tensor") -> "torch.Tensor":
        """Return what the denoiser should predict from x_t: n, the velocity, or n - x in a flow model."""

    @abstractmethod
    def snr(self, timesteps: "torch.Tensor") -> "torch.Tensor":
        """Return the signal-to-noise ratio of x_t, (B,): a / (1-a), or ((1-s) / s)^2 in a flow model."""

    @abstractmethod
    def loss_ratio(self, timesteps: "torch.Tensor") -> "torch.Tensor":
        """Return the squared error of the target over that of the clean latents that it implies, (B,).

        It is the SNR for a prediction of the noise, SNR + 1 for the velocity, and 1 / s^2 in a flow model.
        """

    def noise_share(self, timestep: Timestep) -> float:
        """Return the place of a timestep on the schedule, from 0, the clean end, to below 1."""
        return timestep / self.num_train_timesteps

    @abstractmethod
    def sampling_timesteps(self, num_inference_steps: int) -> list[Timestep]:
        """Return the timesteps of a sampling, from the noisiest on, all different.

        Raises:
            Hand1000Error: More steps than the schedule has.
        """

    @abstractmethod
    def step(
        self,
        model_pred: "torch.Tensor",
        latents: "torch.Tensor",
        timesteps: tuple[Timestep, Timestep | None],
        *,
        eta: float = 0.0,
        generator: Any = None,
    ) -> "torch.Tensor":
        """Compute the latents at the next timestep, (B, C, h, w).

        Args:
            model_pred: The denoiser's prediction, (B, C, h, w).
            latents: x_t at the present timestep.
            timesteps: The present timestep and the next one, None after the last.
            eta: Share of fresh noise, 0 to 1.
            generator: Source of the fresh noise, one or one per image.
        """

    def start_sampling(self, sampler: SamplerName, num_inference_steps: int, eta: float) -> Sampling:
        """Begin a sampling.

        Args:
            sampler: Name of the sampler.
            num_inference_steps: Number of steps.
            eta: Share of fresh noise in a step of `ddim`, 0 to 1.

        Raises:
            Hand1000Error: More steps than the schedule has, or a sampler that this kind of model does not have.
        """
        if sampler != "ddim":
            raise Hand1000Error(
                f"sampler: {sampler} is for diffusion models only; choose ddim, which is Euler's method in a flow model"
            )
        return _SingleStepSampling(self, num_inference_steps, eta)

    @abstractmethod
    def stock_scheduler(self, sampler: SamplerName = "ddim") -> Any:
        """Return a new scheduler of diffusers, with which a stock pipeline samples along this schedule."""

    def stock_sampling_steps(self, num_inference_steps: int, sampler: SamplerName = "ddim") -> int:
        """Return the nearest number of steps in which diffusers samples as `start_sampling`."""
        return num_inference_steps


class _SingleStepSampling(Sampling):
    """A sampling by the schedule's own steps."""

    def __init__(self, schedule: NoiseSchedule, num_inference_steps: int, eta: float) -> None:
        self.timesteps = schedule.sampling_timesteps(num_inference_steps)
        self._schedule, self._eta = schedule, eta

    def step(
        self, model_pred: "torch.Tensor", latents: "torch.Tensor", index: int, generator: Any = None
    ) -> "torch.Tensor":
        """See `Sampling`."""
        timesteps = (self.timesteps[index], next(iter(self.timesteps[index + 1 : index + 2]), None))
        return self._schedule.step(model_pred, latents, timesteps, eta=self._eta, generator=generator)
