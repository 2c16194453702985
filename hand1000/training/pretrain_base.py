"""Training of the small base model from nothing: first its autoencoder, then its text encoder, then its UNet.

All trainings continue from a saved state to the same bits, so that they can be done in several goes.
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
from hand1000.core.rng import shuffled_batch, torch_generator
from hand1000.models import small_base
from hand1000.models.encoding import encode_latents, to_pixels, tokenize
from hand1000.training.batches import BatchSampler, encode_training_set
from hand1000.training.context import TrainContext
from hand1000.training.loop import train_with_ema
from hand1000.training.losses import diffusion_loss

CROP_FRACTION = 0.75
"""Share of the autoencoder's steps that see pieces of pictures."""


def reconstruction_loss(reconstruction: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """Error of the pixels and, to keep edges sharp, of their differences to the right and downward."""
    error = reconstruction - pixels
    edges = (error[..., 1:] - error[..., :-1]).abs().mean() + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    return error.abs().mean() + 0.5 * error.square().mean() + 0.25 * edges


def _random_crop(images: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """The same random quarter of every picture, its corner on the grid of the latents."""
    side = images.shape[1] // 2
    top, left = (torch.randint(side // 4 + 1, (2,), generator=generator) * 4).tolist()
    return np.ascontiguousarray(images[:, top : top + side, left : left + side])


def train_autoencoder(images: np.ndarray, settings: PretrainSettings, context: TrainContext) -> tuple[Any, list[dict]]:
    """Train AutoencoderKL on `images`, uint8 (N, 64, 64, 3).

    The first three quarters of the steps see pieces of a quarter of a picture, twice as many: colours and edges are
    learned from those as well and in half the time.

    Returns:
        The averaged autoencoder, its scaling factor one over the latents' standard deviation, and the history.
    """
    torch.manual_seed(context.seed)
    autoencoder = small_base.build_autoencoder().to(memory_format=torch.channels_last)
    length = settings.autoencoder

    def loss_at(step: int) -> torch.Tensor:
        generator = torch_generator(context.seed, "autoencoder", step)
        in_pieces = step < CROP_FRACTION * length.steps
        count = length.batch_size * (2 if in_pieces else 1)
        batch = images[shuffled_batch(len(images), count, step, context.seed, f"autoencoder-{in_pieces}")]
        pixels = to_pixels(_random_crop(batch, generator) if in_pieces else batch)
        posterior = autoencoder.encode(pixels).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator)
        latents = posterior.mean + posterior.std * noise
        return reconstruction_loss(autoencoder.decode(latents).sample, pixels) + 1e-6 * posterior.kl().mean()

    averaged, history = train_with_ema(autoencoder, settings.autoencoder, loss_at, context)
    averaged.register_to_config(scaling_factor=1.0)
    averaged.register_to_config(scaling_factor=round(1 / encode_latents(averaged, images[:512]).std().item(), 5))
    return averaged, history


class ClipContrastiveLoss(torch.nn.Module):
    """Text encoder and a small image encoder that tell which caption belongs to which latents (CLIP; Radford, 2021).

    Args:
        text_encoder: a CLIPTextModel; the rest of this module is thrown away after the training.
    """

    def __init__(self, text_encoder) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.image_encoder = small_base.build_image_encoder()
        self.text_projection = torch.nn.Linear(small_base.TEXT_DIM, small_base.TEXT_DIM, bias=False)
        self.log_scale = torch.nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, input_ids: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """The contrastive loss of captions (B, L) and their latents (B, C, h, w), in both directions."""
        hidden = self.text_encoder(input_ids).last_hidden_state
        ends = (input_ids == self.text_encoder.config.eos_token_id).int().argmax(dim=1)
        texts = normalize(self.text_projection(hidden[torch.arange(len(hidden)), ends]), dim=1)
        images = normalize(self.image_encoder(latents), dim=1)
        likeness = self.log_scale.exp().clamp(max=100) * images @ texts.T
        own = torch.arange(len(likeness))
        return (cross_entropy(likeness, own) + cross_entropy(likeness.T, own)) / 2


def train_text_encoder(
    images: np.ndarray,
    captions: list[str],
    autoencoder,
    settings: PretrainSettings,
    context: TrainContext,
) -> tuple[Any, Any, list[dict]]:
    """Train the text encoder to match captions and pictures, as Stable Diffusion's was.

    Trained through the UNet alone it learned to pass over whatever covers few pixels: the sleeve's colour.

    Returns:
        The averaged text encoder, the tokenizer learned from the captions, and the history.
    """
    latents = encode_latents(autoencoder, images)
    tokenizer = small_base.build_tokenizer(captions)
    torch.manual_seed(context.seed)
    matcher = ClipContrastiveLoss(small_base.build_text_encoder(tokenizer))
    tokens = tokenize(tokenizer, captions)

    def loss_at(step: int) -> torch.Tensor:
        indices = shuffled_batch(len(latents), settings.text_encoder.batch_size, step, context.seed, "text-encoder")
        return matcher(tokens[indices], latents[indices])

    averaged, history = train_with_ema(matcher, settings.text_encoder, loss_at, context)
    return averaged.text_encoder, tokenizer, history


def train_base(
    images: np.ndarray,
    captions: list[str],
    autoencoder,
    text_encoder,
    tokenizer,
    settings: PretrainSettings,
    context: TrainContext,
) -> tuple[Any, list[dict]]:
    """Train the UNet on uint8 images (N, 64, 64, 3) and their captions, the text encoder frozen.

    Returns:
        The averaged UNet and the history.
    """
    latents = encode_latents(autoencoder, images)
    torch.manual_seed(context.seed)
    unet = small_base.build_unet().to(memory_format=torch.channels_last)
    noise_scheduler = small_base.build_scheduler()
    sampler = BatchSampler(
        encode_training_set(latents, captions, text_encoder, tokenizer),
        settings.base.batch_size,
        noise_scheduler,
        context.seed,
        "base",
        timestep_sampling="logit_normal",
        caption_dropout=settings.caption_dropout,
    )

    def loss_at(step: int) -> torch.Tensor:
        return diffusion_loss(unet, noise_scheduler, sampler.sample(step), context.compute)

    return train_with_ema(unet, settings.base, loss_at, context)


def save_base(
    directory: Path,
    autoencoder,
    text_encoder,
    tokenizer,
    unet,
    settings: PretrainSettings,
    curves: dict[str, list[dict]],
    prompts: list[str],
) -> None:
    """Write the base model as a plain Stable Diffusion folder in half precision.

    Beside it `recipe.json` (settings and loss curves) and `grid.png` (a row a prompt, a column a seed).
    """
    from diffusers import StableDiffusionPipeline

    from hand1000.pipelines.generation import make_image_grid
    from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline

    autoencoder.register_to_config(_name_or_path="")
    scheduler = small_base.build_scheduler()
    # Without guidance and with fresh noise in each step: what blurs or hardens this model's pictures least.
    drawer = Hand1000Pipeline(autoencoder, text_encoder, tokenizer, unet, scheduler, guidance_scale=1.0, eta=1.0)
    drawer.set_progress_bar_config(disable=True)
    pictures: list[Image.Image] = []
    for prompt in prompts:
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in range(8)]
        pictures += drawer([prompt] * 8, num_inference_steps=25, generator=generators).images
    pipeline = StableDiffusionPipeline(
        autoencoder, text_encoder, tokenizer, unet, scheduler, None, None, requires_safety_checker=False
    )
    pipeline.to(dtype=torch.float16).save_pretrained(directory)
    recipe = {"settings": settings.model_dump(mode="json"), "prompts": prompts, "history": curves}
    (directory / "recipe.json").write_text(json.dumps(recipe, indent=1))
    make_image_grid(pictures, 8).save(directory / "grid.png")
