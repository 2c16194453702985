"""Training of the small base model from scratch: its autoencoder, then its text encoder, then its UNet.

Each network is trained on the accelerator, if there is one. Random numbers are drawn on the CPU.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import cross_entropy, normalize

from hand1000.config.pretraining import PretrainSettings
from hand1000.core.devices import best_device
from hand1000.core.rng import shuffled_batch, torch_generator
from hand1000.models import small_base
from hand1000.models.encoding import encode_latents, to_pixels, tokenize
from hand1000.models.stable_diffusion import StableDiffusion
from hand1000.training.batches import BatchSampler, encode_training_set
from hand1000.training.context import TrainContext
from hand1000.training.loop import train_with_ema
from hand1000.training.losses import diffusion_loss

CROP_FRACTION = 0.75
"""Fraction of the autoencoder's steps that train on crops."""


def reconstruction_loss(reconstruction: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """Error of the pixels and, to keep edges sharp, of their horizontal and vertical differences."""
    error = reconstruction - pixels
    edges = (error[..., 1:] - error[..., :-1]).abs().mean() + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    return error.abs().mean() + 0.5 * error.square().mean() + 0.25 * edges


def _random_crop(images: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """Crop the same random quarter of every image, aligned to the grid of the latents."""
    side = images.shape[1] // 2
    top, left = (torch.randint(side // 4 + 1, (2,), generator=generator) * 4).tolist()
    return np.ascontiguousarray(images[:, top : top + side, left : left + side])


def train_autoencoder(images: np.ndarray, settings: PretrainSettings, context: TrainContext) -> tuple[Any, list[dict]]:
    """Train AutoencoderKL on `images`, uint8 (N, S, S, 3) with S = `settings.image_size`.

    The first three quarters of the steps train on crops of a quarter of an image, twice as many per batch: they teach
    colors and edges as well, in half the time.

    Returns:
        The averaged autoencoder, whose scaling factor is one over the latents' standard deviation, and the history.
    """
    torch.manual_seed(context.seed)
    device = best_device()
    autoencoder = small_base.build_autoencoder(settings.image_size).to(device, memory_format=torch.channels_last)
    schedule = settings.autoencoder

    def has_crops(step: int) -> bool:
        return step < CROP_FRACTION * schedule.steps

    def indices_at(step: int) -> list[int]:
        count = schedule.batch_size * (2 if has_crops(step) else 1)
        return shuffled_batch(len(images), count, step, context.seed, f"autoencoder-{has_crops(step)}")

    def loss_at(step: int) -> torch.Tensor:
        generator = torch_generator(context.seed, "autoencoder", step)
        batch = images[indices_at(step)]
        pixels = to_pixels(_random_crop(batch, generator) if has_crops(step) else batch).to(device)
        posterior = autoencoder.encode(pixels).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
        latents = posterior.mean + posterior.std * noise
        return reconstruction_loss(autoencoder.decode(latents).sample, pixels) + 1e-6 * posterior.kl().mean()

    averaged, history = train_with_ema(autoencoder, schedule, loss_at, indices_at, context)
    averaged.register_to_config(scaling_factor=1.0)
    averaged.register_to_config(scaling_factor=round(1 / encode_latents(averaged, images[:512]).std().item(), 5))
    return averaged, history


class ClipContrastiveLoss(torch.nn.Module):
    """Contrastive loss between a CLIPTextModel and a small encoder of latents (CLIP; Radford et al., 2021).

    Only the text encoder is used after the training.
    """

    def __init__(self, text_encoder, image_size: int = small_base.IMAGE_SIZE) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.image_encoder = small_base.build_image_encoder(image_size)
        self.text_projection = torch.nn.Linear(small_base.TEXT_DIM, small_base.TEXT_DIM, bias=False)
        self.logit_scale = torch.nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, input_ids: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """Compute the loss of captions (B, L) and their latents (B, C, h, w), in both directions."""
        hidden = self.text_encoder(input_ids).last_hidden_state
        ends = (input_ids == self.text_encoder.config.eos_token_id).int().argmax(dim=1)
        texts = normalize(self.text_projection(hidden[torch.arange(len(hidden), device=hidden.device), ends]), dim=1)
        images = normalize(self.image_encoder(latents), dim=1)
        logits = self.logit_scale.exp().clamp(max=100) * images @ texts.T
        targets = torch.arange(len(logits), device=logits.device)
        return (cross_entropy(logits, targets) + cross_entropy(logits.T, targets)) / 2


def train_text_encoder(
    images: np.ndarray, captions: list[str], autoencoder, settings: PretrainSettings, context: TrainContext
) -> tuple[Any, Any, list[dict]]:
    """Train the text encoder to match captions and images, as Stable Diffusion's is.

    When trained through the UNet alone, it learned to ignore whatever covers few pixels, such as the sleeve's color.

    Returns:
        The averaged text encoder, the tokenizer learned from the captions, and the history.
    """
    latents = encode_latents(autoencoder, images)
    tokenizer = small_base.build_tokenizer(captions)
    torch.manual_seed(context.seed)
    device = best_device()
    criterion = ClipContrastiveLoss(small_base.build_text_encoder(tokenizer), settings.image_size).to(device)
    tokens = tokenize(tokenizer, captions)

    def indices_at(step: int) -> list[int]:
        return shuffled_batch(len(latents), settings.text_encoder.batch_size, step, context.seed, "text-encoder")

    def loss_at(step: int) -> torch.Tensor:
        indices = indices_at(step)
        return criterion(tokens[indices].to(device), latents[indices].to(device))

    averaged, history = train_with_ema(criterion, settings.text_encoder, loss_at, indices_at, context)
    return averaged.text_encoder, tokenizer, history


def train_base(
    images: np.ndarray,
    captions: list[str],
    autoencoder,
    text_encoder,
    tokenizer,
    settings: PretrainSettings,
    context: TrainContext,
) -> tuple[StableDiffusion, list[dict]]:
    """Train the UNet on uint8 images (N, S, S, 3) and their captions.

    Returns:
        The base model with the averaged UNet, and the history.
    """
    latents = encode_latents(autoencoder, images)
    torch.manual_seed(context.seed)
    device = best_device()
    unet = small_base.build_unet(settings.image_size, settings.unet_channels, settings.unet_layers)
    unet = unet.to(device, memory_format=torch.channels_last)
    base = StableDiffusion(autoencoder, text_encoder, tokenizer, unet, small_base.build_scheduler())
    sampler = BatchSampler(
        encode_training_set(latents, captions, base.encode_text),
        settings.base.batch_size,
        base.schedule,
        context.seed,
        "base",
        timestep_sampling="logit_normal",
        caption_dropout=settings.caption_dropout,
    )

    def loss_at(step: int) -> torch.Tensor:
        return diffusion_loss(base, sampler.sample(step).to(device), context.compute)

    averaged, history = train_with_ema(unet, settings.base, loss_at, sampler.indices, context)
    return base.with_denoiser(averaged), history


def save_base(
    directory: Path,
    base: StableDiffusion,
    settings: PretrainSettings,
    curves: dict[str, list[dict]],
    prompts: list[str],
) -> None:
    """Write the base model as a plain Stable Diffusion folder in half precision.

    Beside it `recipe.json` holds settings and loss curves, and `grid.png` one row per prompt and one column per seed.
    """
    from hand1000.pipelines.generation import make_image_grid
    from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline

    base.vae.register_to_config(_name_or_path="")
    # Without guidance and with fresh noise in each step this model's images are least blurred and least harsh.
    sampler = Hand1000Pipeline(base, guidance_scale=1.0, eta=1.0)
    sampler.set_progress_bar_config(disable=True)
    images: list[Image.Image] = []
    for prompt in prompts:
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in range(8)]
        images += sampler([prompt] * 8, num_inference_steps=25, generator=generators).images
    base.stock_pipeline().to(dtype=torch.float16).save_pretrained(directory)
    recipe = {"settings": settings.model_dump(mode="json"), "prompts": prompts, "history": curves}
    (directory / "recipe.json").write_text(json.dumps(recipe, indent=1))
    make_image_grid(images, 8).save(directory / "grid.png")
