"""Training of the small base model from nothing: first its autoencoder, then its text encoder and UNet together.

Both trainings continue from a saved state to the same bits, so that they can be done in several goes.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from hand1000.diffusion import small_base
from hand1000.diffusion.latents import encode_latents, to_pixels
from hand1000.diffusion.losses import denoising_errors
from hand1000.diffusion.pretrain_settings import PretrainSettings, TrainingLength
from hand1000.diffusion.progress import Checkpoint, StepReport
from hand1000.diffusion.schedules import learning_rate_at, middling_timesteps
from hand1000.diffusion.training_state import ExponentialAverage, keep, resume
from hand1000.randomness import noise_and_timesteps, shuffled_batch, torch_generator

LOG_EVERY = 50
"""Steps that one row of the history averages over; checkpoints fall on such rows."""

PIECES_SHARE = 0.75
"""Share of the autoencoder's steps that see pieces of pictures."""


def reconstruction_loss(reconstruction: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """Error of the pixels and, to keep edges sharp, of their differences to the right and downward."""
    error = reconstruction - pixels
    edges = (error[..., 1:] - error[..., :-1]).abs().mean() + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    return error.abs().mean() + 0.5 * error.square().mean() + 0.25 * edges


def _train(
    module: torch.nn.Module,
    length: TrainingLength,
    loss_at: Callable[[int], torch.Tensor],
    checkpoint: Checkpoint,
    report: StepReport,
) -> tuple[Any, list[dict]]:
    """Train `module` on the loss of each step; returns its exponential average and the history."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.0, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    average = ExponentialAverage(module, length.ema_decay)
    modules = {"module": module, "average": average.module}
    step, _, history = resume(checkpoint, modules=modules, optimizer=optimizer)
    losses: list[float] = []
    while step < length.steps:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(
                step, peak=length.learning_rate, steps=length.steps, warmup_steps=length.warmup_steps, decay="cosine"
            )
        loss = loss_at(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        step += 1
        average.update(module, step)
        losses.append(loss.item())
        report(step, length.steps, {"loss": losses[-1]})
        if step % LOG_EVERY == 0 or step == length.steps:
            history.append({"step": step, "loss": sum(losses) / len(losses)})
            losses = []
            # Rounded up to a row of the history, so that a continued run logs what an undisturbed one logs.
            if step % (LOG_EVERY * max(1, length.checkpoint_every // LOG_EVERY)) == 0:
                keep(checkpoint, step=step, modules=modules, optimizer=optimizer, history=history)
    return average.module, history


def _pieces(images: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """The same random quarter of every picture, its corner on the grid of the latents."""
    side = images.shape[1] // 2
    top, left = (torch.randint(side // 4 + 1, (2,), generator=generator) * 4).tolist()
    return np.ascontiguousarray(images[:, top : top + side, left : left + side])


def train_autoencoder(images: np.ndarray, settings: PretrainSettings, *, checkpoint: Checkpoint, report: StepReport):
    """Train AutoencoderKL on `images`, uint8 (N, 64, 64, 3).

    The first three quarters of the steps see pieces of a quarter of a picture, twice as many: colours and edges are
    learned from those as well and in half the time.

    Returns:
        The averaged autoencoder, its scaling factor one over the latents' standard deviation, and the history.
    """
    torch.manual_seed(settings.seed)
    autoencoder = small_base.build_autoencoder().to(memory_format=torch.channels_last)
    length = settings.autoencoder

    def loss_at(step: int) -> torch.Tensor:
        generator = torch_generator(settings.seed, "autoencoder", step)
        in_pieces = step < PIECES_SHARE * length.steps
        count = length.batch_size * (2 if in_pieces else 1)
        batch = images[shuffled_batch(len(images), count, step, settings.seed, f"autoencoder-{in_pieces}")]
        pixels = to_pixels(_pieces(batch, generator) if in_pieces else batch)
        posterior = autoencoder.encode(pixels).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator)
        latents = posterior.mean + posterior.std * noise
        return reconstruction_loss(autoencoder.decode(latents).sample, pixels) + 1e-6 * posterior.kl().mean()

    averaged, history = _train(autoencoder, settings.autoencoder, loss_at, checkpoint, report)
    averaged.register_to_config(scaling_factor=1.0)
    averaged.register_to_config(scaling_factor=round(1 / encode_latents(averaged, images[:512]).std().item(), 5))
    return averaged, history


class TextConditionedUNet(torch.nn.Module):
    """Text encoder and UNet as one module, since they are trained together from nothing."""

    def __init__(self, text_encoder, unet) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.unet = unet


def train_base(
    images: np.ndarray,
    captions: list[str],
    autoencoder,
    settings: PretrainSettings,
    *,
    checkpoint: Checkpoint,
    report: StepReport,
) -> tuple[TextConditionedUNet, object, list[dict]]:
    """Train text encoder and UNet on uint8 images (N, 64, 64, 3) and their captions.

    Returns:
        The averaged networks, the tokenizer learned from the captions, and the history.
    """
    latents = encode_latents(autoencoder, images)
    tokenizer = small_base.build_tokenizer(captions)
    torch.manual_seed(settings.seed)
    unet = small_base.build_unet().to(memory_format=torch.channels_last)
    model = TextConditionedUNet(small_base.build_text_encoder(tokenizer), unet)
    scheduler = small_base.build_scheduler()
    tokens, empty = _tokenize(tokenizer, captions), _tokenize(tokenizer, [""])
    batch_size = settings.base.batch_size

    def loss_at(step: int) -> torch.Tensor:
        indices = shuffled_batch(len(latents), batch_size, step, settings.seed, "base")
        noise, _ = noise_and_timesteps(
            tuple(latents.shape[1:]),
            settings.seed,
            "base",
            [(step, place) for place in range(batch_size)],
            scheduler.config.num_train_timesteps,
        )
        timesteps = middling_timesteps(batch_size, scheduler.config.num_train_timesteps, settings.seed, "base", step)
        dropped = torch.rand(batch_size, generator=torch_generator(settings.seed, "base-dropout", step))
        input_ids = torch.where((dropped < settings.caption_dropout)[:, None], empty, tokens[indices])
        embeddings = model.text_encoder(input_ids).last_hidden_state
        return denoising_errors(model.unet, scheduler, latents[indices], embeddings, noise, timesteps).mean()

    averaged, history = _train(model, settings.base, loss_at, checkpoint, report)
    return averaged, tokenizer, history


def save_base(
    directory: Path,
    autoencoder,
    model: TextConditionedUNet,
    tokenizer,
    settings: PretrainSettings,
    curves: dict[str, list[dict]],
    prompts: list[str],
) -> None:
    """Write the base model as a plain Stable Diffusion folder in half precision.

    Beside it `recipe.json` (settings and loss curves) and `grid.png` (a row a prompt, a column a seed).
    """
    from diffusers import StableDiffusionPipeline

    from hand1000.diffusion.generate import contact_sheet
    from hand1000.diffusion.pipeline import Hand1000Pipeline

    autoencoder.register_to_config(_name_or_path="")
    scheduler = small_base.build_scheduler()
    drawer = Hand1000Pipeline(autoencoder, model.text_encoder, tokenizer, model.unet, scheduler)
    drawer.set_progress_bar_config(disable=True)
    pictures: list[Image.Image] = []
    for prompt in prompts:
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in range(8)]
        pictures += drawer([prompt] * 8, num_inference_steps=25, generator=generators).images
    pipeline = StableDiffusionPipeline(
        autoencoder, model.text_encoder, tokenizer, model.unet, scheduler, None, None, requires_safety_checker=False
    )
    pipeline.to(dtype=torch.float16).save_pretrained(directory)
    recipe = {"settings": settings.model_dump(mode="json"), "prompts": prompts, "history": curves}
    (directory / "recipe.json").write_text(json.dumps(recipe, indent=1))
    contact_sheet(pictures, 8).save(directory / "grid.png")


def _tokenize(tokenizer, captions: list[str]) -> torch.Tensor:
    return tokenizer(
        captions, padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt"
    ).input_ids
