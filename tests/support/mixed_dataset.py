"""A tiny random dataset of two gestures."""

import torch

from hand1000.gestures import PHRASES
from hand1000.training.encoded_dataset import EncodedDataset
from tests.support.tiny_models import LATENT, TOKENS, WIDTH

GESTURES = ["four", "ok", "ok", "four"]
"""Gesture of each image of `mixed_dataset`."""


def random_features(*gestures: str) -> dict[str, torch.Tensor]:
    """A feature of each gesture."""
    return {name: torch.randn(63, generator=torch.Generator().manual_seed(len(name))) for name in gestures}


def mixed_dataset() -> EncodedDataset:
    """Four images of four persons and two gestures."""
    generator, count = torch.Generator().manual_seed(1), len(GESTURES)
    return EncodedDataset(
        latents=torch.randn(count, 4, LATENT, LATENT, generator=generator),
        text_embeddings=torch.randn(count, TOKENS, WIDTH, generator=generator),
        empty_embedding=torch.randn(TOKENS, WIDTH, generator=generator),
        file_names=[f"{index}.png" for index in range(count)],
        captions=["a hand"] * count,
        texts=[f"a hand, {PHRASES[gesture]}" for gesture in GESTURES],
        user_ids=list("abcd"),
        gestures=GESTURES,
    )
