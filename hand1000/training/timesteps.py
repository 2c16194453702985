"""Timestep sampling and per-timestep loss weights."""

import torch
from diffusers.training_utils import compute_density_for_timestep_sampling

from hand1000.core.rng import torch_generator


def sample_logit_normal_timesteps(
    count: int, num_train_timesteps: int, seed: int, stage: str, step: int
) -> torch.Tensor:
    """Sample timesteps with a normal logit, (count,) int64 (Esser et al., 2024).

    They concentrate where the shapes of an image are decided. Half of the timesteps of a uniform draw train only the
    color of a plain wall or the grain of the skin.
    """
    generator = torch_generator(seed, f"{stage}-timesteps", step)
    densities = compute_density_for_timestep_sampling("logit_normal", count, 0.0, 1.0, generator=generator)
    return (densities * num_train_timesteps).long().clamp(max=num_train_timesteps - 1)


def min_snr_loss_weights(noise_scheduler, timesteps: torch.Tensor, snr_gamma: float) -> torch.Tensor:
    """Compute the min-SNR weight of each item's loss, (B,) (Hang et al., 2023).

    The loss at a low noise level says little about the content of the image but counts as much as any other. Seen as a
    prediction of the clean image, the loss at a timestep is weighted by min(SNR, gamma). Unlike diffusers'
    `compute_snr`, the ratio is not rounded through square roots.

    Args:
        noise_scheduler: Noise schedule and prediction type of the base model.
        timesteps: Timestep of each item, (B,).
        snr_gamma: Upper bound of the ratio, 5 in the paper; 0 weights all timesteps alike.
    """
    if not snr_gamma:
        return torch.ones(len(timesteps), device=timesteps.device)
    alphas_cumprod = noise_scheduler.alphas_cumprod.to(timesteps.device)[timesteps]
    snr = alphas_cumprod / (1 - alphas_cumprod)
    divisor = snr + 1 if noise_scheduler.config.prediction_type == "v_prediction" else snr
    return snr.clamp(max=snr_gamma) / divisor
