"""The one loss of all three stages: how well the UNet tells the noise that was added."""

import torch
import torch.nn.functional as F


def denoising_errors(
    unet, scheduler, latents: torch.Tensor, embeddings: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
) -> torch.Tensor:
    """Mean squared error of the prediction, one value an item (B,) (paper, equation of Stages II and III).

    Args:
        unet: its `prediction_type`, epsilon or v_prediction, is the scheduler's.
        scheduler: gives the noise levels.
        latents: clean and scaled, (B, C, h, w).
        embeddings: what the UNet is conditioned on, (B, L, D).
        noise: (B, C, h, w).
        timesteps: (B,).
    """
    noisy = scheduler.add_noise(latents, noise, timesteps)
    prediction = unet(noisy, timesteps, embeddings).sample
    target = noise
    if scheduler.config.prediction_type == "v_prediction":
        target = scheduler.get_velocity(latents, noise, timesteps)
    return F.mse_loss(prediction.float(), target.float(), reduction="none").mean(dim=(1, 2, 3))
