"""Samplers that need fewer steps than DDIM: diffusers' multistep solvers along the noise schedule of a diffusion model.

They use the predictions of earlier steps too: DPM-Solver++ of order 2 (Lu et al., 2022, arXiv 2211.01095), also with
fresh noise in each step, and UniPC (Zhao et al., 2023, arXiv 2302.04867).
"""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler
from diffusers.utils.torch_utils import randn_tensor

from hand1000.config.sampler import SamplerName
from hand1000.models.schedule import Sampling

_NOISE_SCHEDULE = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
    "rescale_betas_zero_snr",
)
_SOLVERS: Mapping[str, tuple[Any, dict[str, Any]]] = {
    "dpmpp_2m": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
    "dpmpp_2m_sde": (DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    "unipc": (UniPCMultistepScheduler, {}),
}


def make_solver(name: SamplerName, scheduler: DDIMScheduler) -> Any:
    """Make diffusers' scheduler of a solver from the betas and the prediction type of a DDIM scheduler.

    Its timesteps are spaced "trailing", so that few steps too begin with pure noise.
    """
    solver_class, options = _SOLVERS[name]
    config = {key: scheduler.config[key] for key in _NOISE_SCHEDULE}
    # Trailing timesteps have no offset, but diffusers' pipelines warn of a scheduler whose offset is not 1.
    return solver_class(**config, **options, timestep_spacing="trailing", steps_offset=1)


def stock_solver_steps(name: SamplerName, scheduler: DDIMScheduler, num_inference_steps: int) -> int:
    """Return the nearest number of steps that diffusers' solver takes exactly.

    By rounding it adds a step at timestep -1 to 62 numbers of steps from 1 to 1,000, of which 61 is the least.
    """
    solver = make_solver(name, scheduler)
    total = scheduler.config.num_train_timesteps

    def is_exact(steps: int) -> bool:
        if not 1 <= steps <= total:
            return False
        solver.set_timesteps(steps)
        return len(solver.timesteps) == steps

    distances = ((num_inference_steps + d, num_inference_steps - d) for d in range(max(total, num_inference_steps)))
    return next(steps for pair in distances for steps in pair if is_exact(steps))


class SolverSampling(Sampling):
    """One sampling with a solver, which keeps the predictions of its earlier steps."""

    def __init__(self, name: SamplerName, scheduler: DDIMScheduler, num_inference_steps: int) -> None:
        solver = self._solver = make_solver(name, scheduler)
        self._adds_noise = name == "dpmpp_2m_sde"
        solver.set_timesteps(num_inference_steps)
        if len(solver.timesteps) > num_inference_steps:  # See `stock_solver_steps`.
            solver.timesteps = solver.timesteps[:num_inference_steps]
            solver.sigmas = torch.cat([solver.sigmas[:num_inference_steps], solver.sigmas[-1:]])
            solver.num_inference_steps = num_inference_steps
        self.timesteps = solver.timesteps.tolist()

    def step(self, model_pred: torch.Tensor, latents: torch.Tensor, index: int, generator: Any = None) -> torch.Tensor:
        """See `Sampling`."""
        noise = {}
        if self._adds_noise:
            shape, device = model_pred.shape, model_pred.device
            noise["variance_noise"] = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
        timestep = self._solver.timesteps[index]
        next_latents: torch.Tensor = self._solver.step(model_pred, timestep, latents, **noise, return_dict=False)[0]
        return next_latents
