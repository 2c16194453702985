"""A Stable Diffusion XL of its real classes with random weights, small enough for a test."""

import copy
import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from hand1000.models.small_base import build_tokenizer
from hand1000.models.stable_diffusion_xl import StableDiffusionXL
from hand1000.training.encoded_dataset import EncodedDataset
from tests.support.tiny_models import LATENT, TOKENS, VOCABULARY, encoded_dataset

WIDTHS, POOLED = (16, 24), 20
"""Widths of the two text encoders, and of the pooled vector."""

XL_WIDTH = sum(WIDTHS)


@cache
def tiny_sdxl_parts() -> dict[str, Any]:
    """The parts of a model of 16 px images and (4, 8, 8) latents, frozen; shared, so tests must not change them."""
    torch.manual_seed(0)
    tokenizer, tokenizer_2 = build_tokenizer(VOCABULARY), build_tokenizer(VOCABULARY)
    for one, padding in ((tokenizer, tokenizer.eos_token), (tokenizer_2, "!")):
        one.model_max_length, one.pad_token = TOKENS, padding
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=2 * LATENT,
        scaling_factor=0.13025,
    )
    encoders = [
        encoder_class(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=width,
                intermediate_size=width,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=TOKENS,
                hidden_act=activation,
                projection_dim=POOLED,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=own.pad_token_id,
            )
        )
        for encoder_class, width, activation, own in (
            (CLIPTextModel, WIDTHS[0], "quick_gelu", tokenizer),
            (CLIPTextModelWithProjection, WIDTHS[1], "gelu", tokenizer_2),
        )
    ]
    for encoder in encoders:
        # Random weights of this size would let all texts look alike.
        for weights in encoder.parameters():
            weights.data += 0.3 * torch.randn(weights.shape)
    unet = UNet2DConditionModel(
        sample_size=LATENT,
        block_out_channels=(8, 16, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=(1, 2, 2),
        cross_attention_dim=XL_WIDTH,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + POOLED,
    )
    for module in (vae, *encoders, unet):
        module.requires_grad_(False).eval()
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="trailing"
    )
    return {
        "vae": vae,
        "text_encoder": encoders[0],
        "text_encoder_2": encoders[1],
        "tokenizer": tokenizer,
        "tokenizer_2": tokenizer_2,
        "unet": unet,
        "scheduler": scheduler,
    }


def fresh_sdxl_parts() -> dict[str, Any]:
    """The same with a UNet of its own, which may be changed."""
    parts = tiny_sdxl_parts()
    return parts | {"unet": copy.deepcopy(parts["unet"])}


def save_tiny_sdxl(folder: Path, *, zeros: bool = True) -> Path:
    """The same as a diffusers folder; `zeros` is whether the negative prompt is zeros by default."""
    pipeline = StableDiffusionXLPipeline(**tiny_sdxl_parts(), force_zeros_for_empty_prompt=zeros, add_watermarker=False)
    pipeline.save_pretrained(folder)
    return folder


def fresh_sdxl() -> StableDiffusionXL:
    """The tiny model with a UNet of its own."""
    return StableDiffusionXL(**fresh_sdxl_parts(), source="tiny-sdxl")


def sdxl_dataset() -> EncodedDataset:
    """Five random images with captions that the text encoders read."""
    words = ("red", "blue", "a", "left", "hand")
    conditioning = fresh_sdxl().encode_text([f"a {word} hand" for word in words])
    latents = torch.randn(5, 4, LATENT, LATENT, generator=torch.Generator().manual_seed(1))
    plain = encoded_dataset(latents, conditioning.tokens)
    return dataclasses.replace(plain, pooled=conditioning.pooled, empty_pooled=torch.zeros(POOLED))
