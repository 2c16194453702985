"""The denoising loss of all stages, and its weights by timestep and by pixel."""

from typing import Any, Literal

import torch
from torch.nn.functional import mse_loss

from hand1000.config.settings import ComputeSettings
from hand1000.models.backbone import Backbone
from hand1000.models.schedule import NoiseSchedule
from hand1000.training.batches import NoisyBatch
from hand1000.training.precision import autocast_context


def diffusion_loss(
    backbone: Backbone,
    batch: NoisyBatch,
    compute: ComputeSettings,
    *,
    denoiser: Any = None,
    pixel_weights: torch.Tensor | None = None,
    reduction: Literal["none", "mean"] = "mean",
) -> torch.Tensor:
    """Mean squared error of the denoiser's prediction (paper, equation of Stages II and III).

    Args:
        backbone: Backbone, whose schedule says what is to be predicted.
        batch: Latents, conditioning, noise and timesteps on the denoiser's device.
        compute: Precision of the forward pass.
        denoiser: What predicts instead of the backbone's own denoiser, see `Backbone.predict`.
        pixel_weights: Weight of each latent pixel, of mean 1, (B, 1, h, w), see `hand_loss_mask`.
        reduction: "none" returns one loss per item, (B,); "mean" returns their mean.
    """
    latents, noise, timesteps = batch.latents, batch.noise, batch.timesteps
    with autocast_context(latents.device, compute):
        schedule = backbone.schedule
        noisy_latents = schedule.add_noise(latents, noise, timesteps)
        model_pred = backbone.predict(noisy_latents, timesteps, batch.conditioning, denoiser)
        target = schedule.target(latents, noise, timesteps)
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


def min_snr_loss_weights(schedule: NoiseSchedule, timesteps: torch.Tensor, snr_gamma: float) -> torch.Tensor:
    """Compute the min-SNR weight of each item's loss, (B,) (Hang et al., 2023).

    The loss at a low noise level says little about the content of the image but counts as much as any other. Seen as a
    prediction of the clean image, the loss at a timestep is weighted by min(SNR, gamma).

    Args:
        schedule: Noise schedule of the backbone.
        timesteps: Timestep of each item, (B,).
        snr_gamma: Upper bound of the ratio, 5 in the paper; 0 weights all timesteps alike.
    """
    if not snr_gamma:
        return torch.ones(len(timesteps), device=timesteps.device)
    return schedule.snr(timesteps).clamp(max=snr_gamma) / schedule.loss_ratio(timesteps)
