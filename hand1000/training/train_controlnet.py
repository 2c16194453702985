"""Training of a small ControlNet (Zhang et al., 2023, arXiv 2302.05543) on depth maps of hands."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
from PIL import Image

from hand1000.config.controlnet import ControlSettings
from hand1000.hands.depth_pairs import DepthPairs
from hand1000.models.backbone import Backbone
from hand1000.pipelines.controlnet import build_controlnet_pipeline, depth_to_control_image
from hand1000.pipelines.generation import make_image_grid
from hand1000.storage.files import write_json
from hand1000.training.batches import BatchSampler, encode_training_set
from hand1000.training.context import TrainContext
from hand1000.training.loop import train_with_ema
from hand1000.training.losses import diffusion_loss, hand_loss_mask

_WIDTHS = (16, 32, 96, 256)
"""Channels of the layers that encode a depth map, each at half the resolution of the previous one."""


def train_controlnet(
    pairs: DepthPairs, base: Backbone, settings: ControlSettings, context: TrainContext
) -> tuple[Any, list[dict]]:
    """Train a ControlNet of the frozen base model on images and the depth maps of their hands.

    It starts as a copy of the UNet's first half with a zero output, and minimizes the UNet's own loss.

    Returns:
        The averaged ControlNet and the history.

    Raises:
        Hand1000Error: The base model is not one of Stable Diffusion 1.x.
    """
    base.require("ControlNet", base.source)
    latents = base.encode_images(pairs.images)
    torch.manual_seed(context.seed)
    halvings = len(base.vae.config.block_out_channels) - 1
    device = base.device
    controlnet = ControlNetModel.from_unet(base.denoiser, conditioning_embedding_out_channels=_WIDTHS[: halvings + 1])
    controlnet.to(device).requires_grad_(True).train()
    boxes = torch.from_numpy(pairs.boxes)
    sampler = BatchSampler(
        encode_training_set(latents, pairs.captions, base.encode_text),
        settings.schedule.batch_size,
        base.schedule,
        context.seed,
        "control",
        timestep_sampling="logit_normal",
        caption_dropout=settings.caption_dropout,
    )

    def loss_at(step: int) -> torch.Tensor:
        """The loss of the UNet with the ControlNet's residuals on the batch of a step, more where a hand is."""
        indices = sampler.indices(step)
        control_image = depth_to_control_image(pairs.depths[indices] / np.float32(255)).to(device)

        def predict(noisy_latents: torch.Tensor, timesteps: torch.Tensor, encoder_hidden_states: torch.Tensor) -> Any:
            inputs = (noisy_latents, timesteps, encoder_hidden_states)
            down_residuals, mid_residual = controlnet(*inputs, controlnet_cond=control_image, return_dict=False)
            return base.denoiser(
                *inputs,
                down_block_additional_residuals=down_residuals,
                mid_block_additional_residual=mid_residual,
            )

        mask = hand_loss_mask(boxes[indices], latents.shape[2], latents.shape[3], settings.hand_weight).to(device)
        batch = sampler.sample(step).to(device)
        return diffusion_loss(base, batch, context.compute, denoiser=predict, pixel_weights=mask)

    return train_with_ema(controlnet, settings.schedule, loss_at, sampler.indices, context)


def save_controlnet(
    directory: Path,
    controlnet: ControlNetModel,
    base: Backbone,
    settings: ControlSettings,
    history: Sequence[dict],
    pairs: DepthPairs,
) -> None:
    """Write the ControlNet as a diffusers folder in half precision.

    Beside it `recipe.json` holds settings and loss curve, and `grid.png` depth maps with two images below each.
    """
    controlnet.register_to_config(_name_or_path="")
    controlnet.to(base.device)
    prompts = list(pairs.captions)
    pipeline = build_controlnet_pipeline(StableDiffusionControlNetPipeline, base, controlnet)
    images = [Image.fromarray(depth).convert("RGB") for depth in pairs.depths]
    for seed in range(2):
        images += pipeline(
            prompts,
            image=depth_to_control_image(pairs.depths / np.float32(255)),
            generator=[torch.Generator("cpu").manual_seed(seed) for _ in prompts],
            guidance_scale=1.0,
            eta=1.0,
            num_inference_steps=25,
        ).images
    make_image_grid(images, len(prompts)).save(directory / "grid.png")
    write_json(directory / "recipe.json", {"settings": settings.model_dump(mode="json"), "history": list(history)})
    controlnet.half().save_pretrained(directory)
