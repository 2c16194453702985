"""The one loss of all stages, how well the UNet tells the noise that was added, and what a timestep's counts."""

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


def min_snr_weights(scheduler, timesteps: torch.Tensor, gamma: float) -> torch.Tensor:
    """What each item's squared error counts, (B,) (Hang et al., 2023, "min-SNR").

    A picture that is hardly noised teaches little about what it shows, but its error weighs as much as another's. As
    the prediction of a clean picture, a timestep's loss is weighted by its signal-to-noise ratio, at most `gamma`.

    Args:
        scheduler: gives the noise levels and what is predicted.
        timesteps: (B,).
        gamma: above 0; the paper's is 5. 0 weighs all alike.
    """
    if not gamma:
        return torch.ones(len(timesteps), device=timesteps.device)
    signal = scheduler.alphas_cumprod.to(timesteps.device)[timesteps]
    ratio = signal / (1 - signal)
    own = ratio + 1 if scheduler.config.prediction_type == "v_prediction" else ratio
    return ratio.clamp(max=gamma) / own
