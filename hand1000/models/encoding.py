"""Encoding of captions as text embeddings and of images as latents."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from hand1000.storage.images import read_rgb

TEXT_BATCH_SIZE = 64
"""Texts that a text encoder reads at a time."""


def tokenize(tokenizer, texts: Sequence[str], length: int | None = None) -> torch.Tensor:
    """Token ids of `texts`, padded or truncated to `length`, or that of the text encoder, (N, L) int64."""
    length, end, padding = length or tokenizer.model_max_length, tokenizer.eos_token_id, tokenizer.pad_token_id
    # Padding and truncation are states of a tokenizer, which threads would change under each other.
    token_ids = tokenizer(list(texts), verbose=False).input_ids
    cut = [ids if len(ids) <= length else [*ids[: length - 1], end] for ids in token_ids]
    return torch.tensor([[*ids, *[padding] * (length - len(ids))] for ids in cut])


@torch.no_grad()
def encode_texts(
    text_encoder, tokenizer, texts: Sequence[str], batch_size: int = TEXT_BATCH_SIZE, *, length: int | None = None
) -> torch.Tensor:
    """The last hidden states e of `texts`, (N, L, D) on the text encoder's device; L is `length`, if it is given.

    Every text is encoded once: equal captions, which datasets are full of, share their embedding.
    """
    unique = sorted(set(texts))
    ids = tokenize(tokenizer, unique, length).to(text_encoder.device)
    embeddings = torch.cat(
        [text_encoder(ids[start : start + batch_size]).last_hidden_state for start in range(0, len(ids), batch_size)]
    )
    index = {text: position for position, text in enumerate(unique)}
    return embeddings[[index[text] for text in texts]]


@torch.no_grad()
def encode_penultimate(
    text_encoder, tokenizer, texts: Sequence[str], batch_size: int = TEXT_BATCH_SIZE
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The second to last hidden states of `texts`, (N, L, D), on the text encoder's device, and their pooled vectors.

    The pooled vectors, (N, P), are those of an encoder with a projection. Every text is encoded once.
    """
    unique = sorted(set(texts))
    ids = tokenize(tokenizer, unique).to(text_encoder.device)
    outputs = [
        text_encoder(ids[start : start + batch_size], output_hidden_states=True)
        for start in range(0, len(ids), batch_size)
    ]
    index = {text: position for position, text in enumerate(unique)}
    rows = [index[text] for text in texts]
    tokens = torch.cat([output.hidden_states[-2] for output in outputs])[rows]
    pooled = [output.text_embeds for output in outputs if "text_embeds" in output]
    return tokens, torch.cat(pooled)[rows] if pooled else None


def to_pixels(images: np.ndarray) -> torch.Tensor:
    """Convert uint8 images (B, H, W, 3) to float32 (B, 3, H, W) in -1..1, channels last."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    return pixels.contiguous(memory_format=torch.channels_last)


def read_images(paths: Sequence[Path]) -> np.ndarray:
    """Read images of one size as a single uint8 array (N, H, W, 3)."""
    return np.stack([np.asarray(read_rgb(path)) for path in paths])


@torch.no_grad()
def encode_latents(vae, images: np.ndarray, batch_size: int = 32) -> torch.Tensor:
    """The scaled latents of uint8 images (N, H, W, 3), (N, C, h, w) float32 on the CPU.

    They are (latents - shift_factor) * scaling_factor, where Stable Diffusion 1.x and XL have no shift.

    The mean of the posterior replaces a sample: its spread is far below the noise that training adds.
    """
    batches = [
        vae.encode(to_pixels(images[start : start + batch_size]).to(vae.device)).latent_dist.mean.float().cpu()
        for start in range(0, len(images), batch_size)
    ]
    latents = torch.cat(batches)
    if shift := vae.config.get("shift_factor"):
        latents = latents - shift
    return (latents * vae.config.scaling_factor).contiguous()


@torch.no_grad()
def decode_latents(vae, latents: torch.Tensor) -> np.ndarray:
    """The uint8 images (B, H, W, 3) of scaled latents (B, C, h, w)."""
    latents = latents.to(vae.dtype) / vae.config.scaling_factor
    if shift := vae.config.get("shift_factor"):
        latents = latents + shift
    decoded = vae.decode(latents).sample
    # The pixels are rounded: a cast alone truncates, which darkens every image by half a level.
    return ((decoded.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
