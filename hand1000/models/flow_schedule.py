"""The noise schedule of a flow-matching model (Esser et al., 2024, arXiv 2403.03206), sampled by Euler's method.

Notation, beside that of `hand1000.models.schedule`:
    T       number of noise levels from which training draws
    s       share of noise in x_t = (1-s) x + s n, above 0 to 1; the timestep that the denoiser is given is T s
    shift   s of a uniform u is shift u / (1 + (shift - 1) u), which moves the levels towards noise

Sampling takes the s of diffusers' pipeline of the model: evenly spaced ones between the shifted ends, shifted once
more, in Stable Diffusion 3, and those of evenly spaced u in Z-Image.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hand1000.config.sampler import SamplerName
from hand1000.core.errors import Hand1000Error
from hand1000.models.schedule import NoiseSchedule, Sampling, Timestep

if TYPE_CHECKING:
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler

_MAX_TIMESTEPS, _MAX_SHIFT = 100_000, 100.0
_UNSUPPORTED = (
    "use_dynamic_shifting",
    "invert_sigmas",
    "shift_terminal",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "stochastic_sampling",
)
"""Options of diffusers' scheduler that neither Stable Diffusion 3 nor Z-Image sets."""


def make_flow_scheduler(config: Mapping[str, Any], source: str = "scheduler") -> "FlowMatchEulerDiscreteScheduler":
    """Make a new scheduler from the number of timesteps and the shift of a flow model's scheduler config.

    Args:
        config: `scheduler_config.json`, or the `config` of a scheduler.
        source: What the errors name.

    Raises:
        Hand1000Error: The config is not that of a flow model, sets an option that training does not know, or has a
            value out of range.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler

    if "shift" not in config:
        raise Hand1000Error(f"{source}: the scheduler config has no shift; choose a flow-matching model")
    for name in _UNSUPPORTED:
        if config.get(name):
            raise Hand1000Error(f"{source}: the scheduler config sets {name}; choose a model with a constant shift")
    total, shift = config.get("num_train_timesteps", 1000), config["shift"]
    if isinstance(total, bool) or not isinstance(total, int) or not 1 <= total <= _MAX_TIMESTEPS:
        raise Hand1000Error(f"{source}: num_train_timesteps is {total!r:.40}, not 1 to {_MAX_TIMESTEPS}")
    if isinstance(shift, bool) or not isinstance(shift, int | float) or not 0 < shift <= _MAX_SHIFT:
        raise Hand1000Error(f"{source}: shift is {shift!r:.40}, not above 0 to {_MAX_SHIFT:g}")
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=total, shift=float(shift))


class FlowSchedule(NoiseSchedule):
    """The noise schedule of a flow model, whose denoiser predicts the velocity n - x.

    Args:
        scheduler: The scheduler of `make_flow_scheduler`.
        shifts_once: Whether sampling begins with evenly spaced u, as the stock pipeline of Z-Image.
    """

    def __init__(self, scheduler: "FlowMatchEulerDiscreteScheduler", *, shifts_once: bool = False) -> None:
        self.scheduler, self._shifts_once = scheduler, shifts_once
        self.num_train_timesteps: int = scheduler.config.num_train_timesteps

    def to_timesteps(self, indices: "torch.Tensor") -> "torch.Tensor":
        """See `NoiseSchedule`; float32, T s of u = (index + 1) / T."""
        shift = self.scheduler.config.shift
        uniform = (indices + 1).float() / self.num_train_timesteps
        return shift * uniform / (1 + (shift - 1) * uniform) * self.num_train_timesteps

    def add_noise(self, latents: "torch.Tensor", noise: "torch.Tensor", timesteps: "torch.Tensor") -> "torch.Tensor":
        """See `NoiseSchedule`."""
        share = self._share(timesteps).to(latents).reshape(-1, *[1] * (latents.ndim - 1))
        return (1 - share) * latents + share * noise

    def target(self, latents: "torch.Tensor", noise: "torch.Tensor", timesteps: "torch.Tensor") -> "torch.Tensor":
        """See `NoiseSchedule`."""
        return noise - latents

    def snr(self, timesteps: "torch.Tensor") -> "torch.Tensor":
        """See `NoiseSchedule`."""
        share = self._share(timesteps)
        return ((1 - share) / share).square()

    def loss_ratio(self, timesteps: "torch.Tensor") -> "torch.Tensor":
        """See `NoiseSchedule`. The clean latents are x_t - s v, of which s^2 of the squared error in v remains."""
        return self._share(timesteps).square().reciprocal()

    def noise_share(self, timestep: Timestep) -> float:
        """See `NoiseSchedule`; it is s, less one timestep, because pure noise has the timestep T."""
        return max(0.0, timestep - 1) / self.num_train_timesteps

    def sampling_timesteps(self, num_inference_steps: int) -> list[Timestep]:
        """See `NoiseSchedule`; those of diffusers' pipeline of the model."""
        if not 1 <= num_inference_steps <= self.num_train_timesteps:
            raise Hand1000Error(
                f"num_inference_steps: {num_inference_steps} is out of range; this model's noise schedule has "
                f"{self.num_train_timesteps} timesteps, so choose 1 to {self.num_train_timesteps}"
            )
        import torch

        # A new one, because a server runs calls of different lengths side by side.
        scheduler = make_flow_scheduler(self.scheduler.config)
        if self._shifts_once:
            sigmas = torch.linspace(1.0, 1 / num_inference_steps, num_inference_steps)
            scheduler.set_timesteps(sigmas=sigmas.tolist())
        else:
            scheduler.set_timesteps(num_inference_steps)
        timesteps: list[Timestep] = scheduler.timesteps.tolist()
        return timesteps

    def step(
        self,
        model_pred: "torch.Tensor",
        latents: "torch.Tensor",
        timesteps: tuple[Timestep, Timestep | None],
        *,
        eta: float = 0.0,
        generator: Any = None,
    ) -> "torch.Tensor":
        """See `NoiseSchedule`; a step of Euler's method along the velocity, computed in float32 as diffusers does."""
        _check_eta(eta)
        present, following = timesteps
        change = ((following or 0.0) - present) / self.num_train_timesteps
        return (latents.float() + change * model_pred).to(model_pred.dtype)

    def start_sampling(self, sampler: SamplerName, num_inference_steps: int, eta: float) -> Sampling:
        """See `NoiseSchedule`."""
        _check_eta(eta)
        return super().start_sampling(sampler, num_inference_steps, eta)

    def stock_scheduler(self, sampler: SamplerName = "ddim") -> "FlowMatchEulerDiscreteScheduler":
        """See `NoiseSchedule`."""
        return make_flow_scheduler(self.scheduler.config)

    def _share(self, timesteps: "torch.Tensor") -> "torch.Tensor":
        return timesteps / self.num_train_timesteps


def _check_eta(eta: float) -> None:
    if not math.isclose(eta, 0.0):
        raise Hand1000Error(f"eta: {eta:g} adds fresh noise, which Euler's method in a flow model does not; choose 0")
