"""Pictures as latents, computed once a picture and kept."""

from pathlib import Path

import numpy as np
import torch


def to_pixels(images: np.ndarray) -> torch.Tensor:
    """uint8 (B, H, W, 3) to float32 (B, 3, H, W) in -1..1, channels last."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    return pixels.contiguous(memory_format=torch.channels_last)


def read_images(paths: list[Path]) -> np.ndarray:
    """The pictures as one uint8 array (N, H, W, 3); they must be of one size, as an image set's are."""
    from PIL import Image

    return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])


@torch.no_grad()
def encode_latents(vae, images: np.ndarray, batch_size: int = 32) -> torch.Tensor:
    """The scaled latents (N, C, h, w), float32 on the CPU, of uint8 images (N, H, W, 3).

    The mean of the posterior stands for a sample of it: its spread is far below the noise that training adds.
    """
    batches = [
        vae.encode(to_pixels(images[start : start + batch_size]).to(vae.device)).latent_dist.mean.float().cpu()
        for start in range(0, len(images), batch_size)
    ]
    return (torch.cat(batches) * vae.config.scaling_factor).contiguous()
