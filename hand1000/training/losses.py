"""The one loss of all stages, how well the UNet tells the noise that was added, and what a timestep's counts."""

import torch
import torch.nn.functional as F


def diffusion_loss(
    unet,
    scheduler,
    latents: torch.Tensor,
    embeddings: torch.Tensor,
    noise: torch.Tensor,
    timesteps: torch.Tensor,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean squared error of the prediction, one value an item (B,) (paper, equation of Stages II and III).

    Args:
        unet: its `prediction_type`, epsilon or v_prediction, is the scheduler's.
        scheduler: gives the noise levels.
        latents: clean and scaled, (B, C, h, w).
        embeddings: what the UNet is conditioned on, (B, L, D).
        noise: (B, C, h, w).
        timesteps: (B,).
        weights: what each place counts, of mean 1, (B, 1, h, w), see `hand_loss_mask`; None counts all alike.
    """
    noisy = scheduler.add_noise(latents, noise, timesteps)
    prediction = unet(noisy, timesteps, embeddings).sample
    target = noise
    if scheduler.config.prediction_type == "v_prediction":
        target = scheduler.get_velocity(latents, noise, timesteps)
    errors = F.mse_loss(prediction.float(), target.float(), reduction="none")
    return (errors if weights is None else errors * weights).mean(dim=(1, 2, 3))


def hand_loss_mask(boxes: torch.Tensor, height: int, width: int, weight: float) -> torch.Tensor:
    """What each place of the latents counts, (B, 1, h, w): `weight` in the hand's box, 1 outside it, then of mean 1.

    Args:
        boxes: x, y, w, h relative to the picture, (B, 4); a place that is partly inside counts for that part.
        height, width: h and w.
        weight: 1 or more.
    """
    x, y, w, h = boxes[:, :, None].unbind(1)

    def covered(first: torch.Tensor, last: torch.Tensor, size: int) -> torch.Tensor:
        edges = torch.arange(size + 1) / size
        return ((torch.minimum(last, edges[1:]) - torch.maximum(first, edges[:-1])) * size).clamp(0, 1)

    inside = covered(y, y + h, height)[:, None, :, None] * covered(x, x + w, width)[:, None, None, :]
    weights = 1 + (weight - 1) * inside
    return weights / weights.mean(dim=(1, 2, 3), keepdim=True)


def min_snr_loss_weights(scheduler, timesteps: torch.Tensor, gamma: float) -> torch.Tensor:
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
