"""ControlNets (Zhang et al., 2023, arXiv 2302.05543): training one on depth maps of hands, and loading one."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline, UNet2DConditionModel
from PIL import Image

from hand1000.config.controlnet import ControlSettings
from hand1000.core.errors import Hand1000Error
from hand1000.core.rng import noise_and_timesteps, shuffled_batch, torch_generator
from hand1000.hands.depth_pairs import DepthPairs
from hand1000.models.base_model import BaseModel
from hand1000.models.encoding import encode_texts
from hand1000.models.latents import encode_latents
from hand1000.pipelines.generation import make_image_grid
from hand1000.storage.files import write_json
from hand1000.storage.hub import fetch_model_folder
from hand1000.training.context import TrainContext
from hand1000.training.loop import train_with_ema
from hand1000.training.losses import diffusion_loss, hand_loss_mask
from hand1000.training.lr import sample_logit_normal_timesteps

_WIDTHS = (16, 32, 96, 256)
"""Channels of the layers that bring a depth map to the latents' size, each at half the size of the one before."""


def load_controlnet(source: str, device: "torch.device | str" = "cpu") -> ControlNetModel:
    """The ControlNet in `source`: a folder, the `s3://` address of one, or a pinned hub id.

    Raises:
        Hand1000Error: nothing is there, or something else.
    """
    folder = fetch_model_folder(source)
    try:
        controlnet = ControlNetModel.from_pretrained(folder, torch_dtype=torch.float32, use_safetensors=True)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise Hand1000Error(f"{source}: cannot be loaded as a ControlNet: {reason}") from error
    return controlnet.to(device).requires_grad_(False).eval()


def depth_to_control_image(depths: np.ndarray) -> torch.Tensor:
    """Depth maps (B, S, S) in 0..1, as a ControlNet takes them: (B, 3, S, S) float32."""
    return torch.from_numpy(depths.astype(np.float32))[:, None].expand(-1, 3, -1, -1).contiguous()


def build_controlnet_pipeline(kind: Any, base: BaseModel, controlnet: ControlNetModel) -> Any:
    """One of diffusers' ControlNet pipelines over a base model, silent while it draws."""
    parts = (base.vae, base.text_encoder, base.tokenizer, base.unet, controlnet, base.scheduler)
    pipeline = kind(*parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@contextmanager
def controlnet_guidance(unet: UNet2DConditionModel, scale: float) -> Iterator[None]:
    """While it lasts, what a ControlNet changes in the prediction of `unet` is taken `scale` times.

    As classifier-free guidance does with a text (Ho & Salimans, 2022): away from what the same text gives without the
    map. 1 changes nothing and costs nothing, more costs a second prediction.
    """

    def amplified(unet: Any, args: tuple, given: dict[str, Any], output: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        without = {name: value for name, value in given.items() if "additional_residual" not in name}
        plain = unet.forward(*args, **without)[0]
        return (plain + scale * (output[0] - plain),)

    hook = unet.register_forward_hook(amplified, with_kwargs=True) if scale != 1 else None
    try:
        yield
    finally:
        if hook is not None:
            hook.remove()


def train_controlnet(
    pairs: DepthPairs,
    base: BaseModel,
    settings: ControlSettings,
    context: TrainContext,
) -> tuple[Any, list[dict]]:
    """Train a ControlNet of the base model, which stays as it is, on pictures and the depth maps of their hands.

    It starts as a copy of the UNet's first half whose output is silenced, and learns the UNet's own loss.

    Returns:
        The averaged ControlNet and the history.
    """
    latents = encode_latents(base.vae, pairs.images)
    torch.manual_seed(context.seed)
    halvings = len(base.vae.config.block_out_channels) - 1
    device = base.unet.device
    controlnet = ControlNetModel.from_unet(base.unet, conditioning_embedding_out_channels=_WIDTHS[: halvings + 1])
    controlnet.to(device).requires_grad_(True).train()
    unique = sorted(set(pairs.captions))
    place = {caption: index for index, caption in enumerate(unique)}
    embeddings, empty = (encode_texts(base.text_encoder, base.tokenizer, texts) for texts in (unique, [""]))
    embedding_of = torch.tensor([place[caption] for caption in pairs.captions])
    boxes = torch.from_numpy(pairs.boxes)
    steps = base.scheduler.config.num_train_timesteps
    batch_size = settings.length.batch_size

    def loss_at(step: int) -> torch.Tensor:
        indices = shuffled_batch(len(latents), batch_size, step, context.seed, "control")
        noise, _ = noise_and_timesteps(
            tuple(latents.shape[1:]),
            context.seed,
            "control",
            [(step, number) for number in range(batch_size)],
            steps,
        )
        timesteps = sample_logit_normal_timesteps(batch_size, steps, context.seed, "control", step)
        dropped = torch.rand(batch_size, generator=torch_generator(context.seed, "control-dropout", step))
        own = embeddings[embedding_of[indices]]
        without = (dropped < settings.caption_dropout)[:, None, None].to(device)
        condition = torch.where(without, empty.to(device), own.to(device))
        shown = depth_to_control_image(pairs.depths[indices] / np.float32(255)).to(device)

        def controlled(noisy: torch.Tensor, timesteps: torch.Tensor, condition: torch.Tensor) -> Any:
            down, middle = controlnet(noisy, timesteps, condition, controlnet_cond=shown, return_dict=False)
            return base.unet(
                noisy,
                timesteps,
                condition,
                down_block_additional_residuals=down,
                mid_block_additional_residual=middle,
            )

        weights = hand_loss_mask(boxes[indices], latents.shape[2], latents.shape[3], settings.hand_weight)
        clean, noise, timesteps, weights = (part.to(device) for part in (latents[indices], noise, timesteps, weights))
        return diffusion_loss(controlled, base.scheduler, clean, condition, noise, timesteps, weights).mean()

    return train_with_ema(controlnet, settings.length, loss_at, context)


def save_controlnet(
    directory: Path,
    controlnet: ControlNetModel,
    base: BaseModel,
    settings: ControlSettings,
    history: Sequence[dict],
    pairs: DepthPairs,
) -> None:
    """Write the ControlNet as a diffusers folder in half precision.

    Beside it `recipe.json` (settings and loss curve) and `grid.png`: depth maps and, below each, two pictures of it.
    """
    controlnet.register_to_config(_name_or_path="")
    controlnet.to(base.unet.device)
    prompts = list(pairs.captions)
    pipeline = build_controlnet_pipeline(StableDiffusionControlNetPipeline, base, controlnet)
    rows = [Image.fromarray(depth).convert("RGB") for depth in pairs.depths]
    for seed in range(2):
        rows += pipeline(
            prompts,
            image=depth_to_control_image(pairs.depths / np.float32(255)),
            generator=[torch.Generator("cpu").manual_seed(seed) for _ in prompts],
            guidance_scale=1.0,
            eta=1.0,
            num_inference_steps=25,
        ).images
    make_image_grid(rows, len(prompts)).save(directory / "grid.png")
    write_json(directory / "recipe.json", {"settings": settings.model_dump(mode="json"), "history": list(history)})
    controlnet.half().save_pretrained(directory)
