"""The denoising loss of all stages, and its weights by timestep and by pixel."""

from typing import Literal

import torch
from torch.nn.functional import mse_loss

from hand1000.config.settings import ComputeSettings
from hand1000.training.batches import NoisyBatch
from hand1000.training.precision import autocast_context


def diffusion_loss(
    unet,
    noise_scheduler,
    batch: NoisyBatch,
    compute: ComputeSettings,
    *,
    pixel_weights: torch.Tensor | None = None,
    reduction: Literal["none", "mean"] = "mean",
) -> torch.Tensor:
    """Mean squared error of the UNet's prediction (paper, equation of Stages II and III).

    Args:
        unet: Denoiser with the scheduler's `prediction_type`, epsilon or v_prediction.
        noise_scheduler: Noise schedule of the base model.
        batch: Latents, conditioning, noise and timesteps on the UNet's device.
        compute: Precision of the forward pass.
        pixel_weights: Weight of each latent pixel, of mean 1, (B, 1, h, w), see `hand_loss_mask`.
        reduction: "none" returns one loss per item, (B,); "mean" returns their mean.
    """
    latents, noise, timesteps = batch.latents, batch.noise, batch.timesteps
    with autocast_context(latents.device, compute):
        noisy_latents = noise_scheduler.add_noise(latents, noise, timesteps)
        model_pred = unet(noisy_latents, timesteps, batch.encoder_hidden_states).sample
        target = noise
        if noise_scheduler.config.prediction_type == "v_prediction":
            target = noise_scheduler.get_velocity(latents, noise, timesteps)
        errors = mse_loss(model_pred.float(), target.float(), reduction="none")
        losses = (errors if pixel_weights is None else errors * pixel_weights).mean(dim=(1, 2, 3))
        return losses.mean() if reduction == "mean" else losses


def hand_loss_mask(boxes: torch.Tensor, height: int, width: int, weight: float) -> torch.Tensor:
    """Weights of the latent pixels, (B, 1, h, w): `weight` in the hand's box and 1 outside, scaled to mean 1.

    Args:
        boxes: Hand boxes x, y, w, h relative to the image, (B, 4); a pixel that is partly inside counts in part.
        height: Height h of the latents.
        width: Width w of the latents.
        weight: Weight of the box, at least 1.
    """
    x, y, w, h = boxes[:, :, None].unbind(1)

    def coverage(start: torch.Tensor, end: torch.Tensor, size: int) -> torch.Tensor:
        edges = torch.arange(size + 1) / size
        return ((torch.minimum(end, edges[1:]) - torch.maximum(start, edges[:-1])) * size).clamp(0, 1)

    inside = coverage(y, y + h, height)[:, None, :, None] * coverage(x, x + w, width)[:, None, None, :]
    weights = 1 + (weight - 1) * inside
    return weights / weights.mean(dim=(1, 2, 3), keepdim=True)


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
