"""Validation during Stage III: the loss on images that are not trained on, and images generated from fixed noise."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from hand1000.config.settings import Settings, ValidationSettings
from hand1000.core.errors import Hand1000Error
from hand1000.core.rng import derived_seed, torch_generator
from hand1000.models.backbone import Backbone
from hand1000.models.conditioning import Conditioning
from hand1000.models.fusion import Fusion, double_fusion, gesture_indices
from hand1000.pipelines.generation import generate, make_image_grid
from hand1000.pipelines.pipeline_hand1000 import build_pipeline
from hand1000.training.batches import NoisyBatch
from hand1000.training.context import TrainContext
from hand1000.training.distributed import DistributedContext
from hand1000.training.encoded_dataset import EncodedDataset
from hand1000.training.losses import diffusion_loss

VALIDATION_TIMESTEPS = 4
"""Number of evenly spread timesteps at which each image is evaluated, the same at every validation."""

IMAGES_DIR = "validation"
"""Folder of the generated images, `000100.png` after 100 steps."""


@dataclass(frozen=True)
class Validation:
    """Validation of the denoiser every so many steps; each one writes a sheet of generated images into `folder`.

    The tokens are h of the captions and not optimized, as those of prompts at inference.
    """

    latents: torch.Tensor  # (V, C, h, w)
    conditioning: Conditioning  # of V images
    settings: ValidationSettings
    generate: Callable[[], list[Image.Image]]
    folder: Path

    @torch.no_grad()
    def loss(self, base: Backbone, context: TrainContext, batch_size: int, distributed: DistributedContext) -> float:
        """Mean loss over all images and `VALIDATION_TIMESTEPS` timesteps, the same in every process."""
        schedule, count = base.schedule, base.schedule.num_train_timesteps
        cases = [(image, level) for image in range(len(self.latents)) for level in range(VALIDATION_TIMESTEPS)]
        shard = [cases[index] for index in distributed.shard(len(cases))]
        total = torch.zeros((), device=base.device)
        for start in range(0, len(shard), batch_size):
            batch_cases = shard[start : start + batch_size]
            images = [image for image, _ in batch_cases]
            generators = [torch_generator(context.seed, "validation", *case) for case in batch_cases]
            indices = [(2 * level + 1) * count // (2 * VALIDATION_TIMESTEPS) for _, level in batch_cases]
            batch = NoisyBatch(
                self.latents[images],
                self.conditioning[images],
                noise=torch.stack([torch.randn(self.latents.shape[1:], generator=draw) for draw in generators]),
                timesteps=schedule.to_timesteps(torch.tensor(indices)),
            ).to(base.device)
            total += diffusion_loss(base, batch, context.compute, reduction="none").sum()
        return distributed.all_reduce_sum(total).item() / len(cases)

    def is_due(self, step: int, steps: int) -> bool:
        """Whether to validate after `step` of `steps` steps."""
        return step % self.settings.every == 0 or step == steps

    def save_images(self, step: int) -> None:
        """Write a sheet of images that the denoiser generates after `step` steps."""
        if self.settings.images_drawn:
            images = self.generate()
            make_image_grid(images, columns=len(images)).save(self.folder / f"{step:06d}.png")


def build_validation(
    base: Backbone, data: EncodedDataset, indices: Sequence[int], fusion: Fusion, settings: Settings, folder: Path
) -> Validation:
    """Build the validation of Stage III with the images `indices` of `data`; create the folder of its images."""
    folder.mkdir()
    indices = list(indices)
    sample = indices[: settings.stage3.validation.images_drawn]
    prompts, gestures = [data.texts[index] for index in sample], [data.gestures[index] for index in sample]
    defaults = settings.generation.sampler_defaults() | {"autoguidance_scale": 1.0}
    pipeline = build_pipeline(base, fusion=copy.deepcopy(fusion), **defaults)
    pipeline.set_progress_bar_config(disable=True)

    def generate_sample() -> list[Image.Image]:
        # Between validations the rest of the model would only take memory from the training.
        pipeline.to(base.device)
        try:
            return list(generate(pipeline, prompts, range(len(prompts)), gestures=gestures))
        finally:
            for part in base.parts.values():
                if isinstance(part, torch.nn.Module) and part is not base.denoiser:
                    part.to("cpu")

    gesture_ids = gesture_indices(fusion, data.gestures)[indices]
    conditioning = data.conditioning[indices]
    h = double_fusion(conditioning.tokens, fusion, settings.stage2.lambda_, gesture_ids).detach()
    return Validation(
        data.latents[indices], conditioning.with_tokens(h), settings.stage3.validation, generate_sample, folder
    )


def split_validation(user_ids: Sequence[str], count: int, seed: int) -> tuple[list[int], list[int]]:
    """Split images into those to train on and at least `count` to validate with; no person is on both sides.

    Returns:
        The indices of the training images and of the validation images, each in order.

    Raises:
        Hand1000Error: No image would remain to train on.
    """
    people = sorted(set(user_ids), key=lambda user: derived_seed(seed, "validation", user))
    held_out: set[str] = set()
    for user in people:
        if sum(user_id in held_out for user_id in user_ids) >= count:
            break
        held_out.add(user)
    training = [index for index, user_id in enumerate(user_ids) if user_id not in held_out]
    if count and not training:
        raise Hand1000Error(
            f"stage3.validation.images: {count} of {len(user_ids)} images, with all of their people, leave none to "
            "train on; choose fewer, or take more images"
        )
    return training, [index for index, user_id in enumerate(user_ids) if user_id in held_out]


def validation_losses(history: Sequence[dict]) -> list[float]:
    """The validation losses in a history, in order."""
    return [row["validation_loss"] for row in history if "validation_loss" in row]


def should_stop_early(history: Sequence[dict], patience: int) -> bool:
    """Whether the last `patience` validations did not improve on the best one before; never with a patience of 0."""
    losses = validation_losses(history)
    return bool(patience) and len(losses) > patience and min(losses[:-patience]) <= min(losses[-patience:])
