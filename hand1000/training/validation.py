"""What is looked at while Stage III trains: the loss on images that are held back, and pictures of the same noise."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from hand1000.config.settings import ComputeSettings, ValidationSettings
from hand1000.core.errors import Hand1000Error
from hand1000.core.rng import derived_seed, torch_generator
from hand1000.models.base_model import BaseModel
from hand1000.pipelines.generation import make_image_grid
from hand1000.training.distributed import DistributedContext
from hand1000.training.losses import diffusion_loss
from hand1000.training.precision import autocast_context

VALIDATION_TIMESTEPS = 4
"""Timesteps at which each image is looked at, evenly spread: the same each time, so that looks can be compared."""

IMAGES_DIR = "validation"
"""The folder of the pictures that were drawn on the way, `000100.png` after 100 steps."""


def split_validation(user_ids: Sequence[str], count: int, seed: int) -> tuple[list[int], list[int]]:
    """Divide training images into those to train on and those to validate with; nobody is on both sides.

    Args:
        user_ids: who is on each image.
        count: of images to hold back at least; people are taken whole.
        seed: of the run.

    Returns:
        The indices of either side, in order.

    Raises:
        Hand1000Error: nothing would be left to train on.
    """
    people = sorted(set(user_ids), key=lambda user: derived_seed(seed, "validation", user))
    chosen: set[str] = set()
    for user in people:
        if sum(each in chosen for each in user_ids) >= count:
            break
        chosen.add(user)
    training = [index for index, user in enumerate(user_ids) if user not in chosen]
    if count and not training:
        raise Hand1000Error(
            f"stage3.validation.images: {count} of {len(user_ids)} images, with all of their people, leave none to "
            "train on; choose fewer, or take more images"
        )
    return training, [index for index, user in enumerate(user_ids) if user in chosen]


@dataclass(frozen=True)
class Validation:
    """A look at the UNet every so many steps.

    Attributes:
        latents: of the images that are held back, scaled, (V, C, h, w).
        embeddings: h of their captions, (V, L, D): unrefined, as prompts are at inference.
        settings: how often, and how long without a better look.
        seed: of the run.
        draw: pictures of the pipeline as it is now.
        folder: where they go, a sheet a look, `000100.png` after 100 steps.
    """

    latents: torch.Tensor
    embeddings: torch.Tensor
    settings: ValidationSettings
    seed: int
    draw: Callable[[], list[Image.Image]]
    folder: Path

    @torch.no_grad()
    def loss(self, base: BaseModel, compute: ComputeSettings, batch_size: int, processes: DistributedContext) -> float:
        """Mean squared error over all images and `VALIDATION_TIMESTEPS` timesteps, the same in every process."""
        device, timesteps = base.unet.device, base.scheduler.config.num_train_timesteps
        cases = [(image, level) for image in range(len(self.latents)) for level in range(VALIDATION_TIMESTEPS)]
        mine = [cases[index] for index in processes.share(len(cases))]
        total = torch.zeros((), device=device)
        for start in range(0, len(mine), batch_size):
            images, levels = zip(*mine[start : start + batch_size], strict=True)
            draws = [torch_generator(self.seed, "validation", *case) for case in zip(images, levels, strict=True)]
            noise = torch.stack([torch.randn(self.latents.shape[1:], generator=draw) for draw in draws])
            times = torch.tensor([(2 * level + 1) * timesteps // (2 * VALIDATION_TIMESTEPS) for level in levels])
            chosen = list(images)
            with autocast_context(device, compute):
                total += diffusion_loss(
                    base.unet,
                    base.scheduler,
                    self.latents[chosen].to(device),
                    self.embeddings[chosen].to(device),
                    noise.to(device),
                    times.to(device),
                ).sum()
        return processes.sum(total).item() / len(cases)

    def save_pictures(self, step: int) -> None:
        """Draw a sheet of what the UNet draws after `step` steps."""
        if self.settings.images_drawn:
            pictures = self.draw()
            make_image_grid(pictures, columns=len(pictures)).save(self.folder / f"{step:06d}.png")


def validation_losses(history: list[dict]) -> list[float]:
    """The validation losses in a history, in order."""
    return [row["validation_loss"] for row in history if "validation_loss" in row]


def should_stop_early(history: list[dict], patience: int) -> bool:
    """Whether the last `patience` looks were no better than one before them; never with a patience of 0."""
    losses = validation_losses(history)
    return bool(patience) and len(losses) > patience and min(losses[:-patience]) <= min(losses[-patience:])
