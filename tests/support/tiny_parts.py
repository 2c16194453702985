"""Parts that several tiny backbones have in common."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import nn
from transformers import CLIPTokenizer

from hand1000.models.small_base import build_tokenizer
from tests.support.tiny_models import LATENT, TOKENS, VOCABULARY, clip_config


def two_tokenizers() -> list[CLIPTokenizer]:
    """The tokenizers of OpenAI's CLIP and of OpenCLIP, which differ in what they pad with."""
    tokenizers = [build_tokenizer(VOCABULARY), build_tokenizer(VOCABULARY)]
    for tokenizer, padding in zip(tokenizers, (tokenizers[0].eos_token, "!"), strict=True):
        tokenizer.model_max_length, tokenizer.pad_token = TOKENS, padding
    return tokenizers


def two_text_encoders(
    classes: Sequence[Any], tokenizers: Sequence[CLIPTokenizer], widths: Sequence[int], pooled: Sequence[int]
) -> list[Any]:
    """Text encoders of OpenAI's CLIP and of OpenCLIP, which differ in their activation."""
    return [
        encoder_class(
            clip_config(tokenizer, width, num_hidden_layers=2, hidden_act=activation, projection_dim=projection)
        )
        for encoder_class, tokenizer, width, projection, activation in zip(
            classes, tokenizers, widths, pooled, ("quick_gelu", "gelu"), strict=True
        )
    ]


def autoencoder(**config: Any) -> AutoencoderKL:
    """An autoencoder of two pixels a latent."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=2 * LATENT,
        **config,
    )


def tell_texts_apart(encoders: Sequence[nn.Module]) -> None:
    """Enlarge the random weights, which at this size would let all texts look alike."""
    for encoder in encoders:
        for weights in encoder.parameters():
            weights.data += 0.3 * torch.randn(weights.shape)
