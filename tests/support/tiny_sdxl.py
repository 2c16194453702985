"""A Stable Diffusion XL of its real classes with random weights, small enough for a test."""

import copy
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from hand1000.models.stable_diffusion_xl import StableDiffusionXL
from tests.support.tiny_models import LATENT
from tests.support.tiny_parts import autoencoder, tell_texts_apart, two_text_encoders, two_tokenizers

WIDTHS, POOLED = (16, 24), 20
"""Widths of the two text encoders, and of the pooled vector."""

XL_WIDTH = sum(WIDTHS)


@cache
def tiny_sdxl_parts() -> dict[str, Any]:
    """The parts of a model of 16 px images and (4, 8, 8) latents, frozen; shared, so tests must not change them."""
    torch.manual_seed(0)
    tokenizers = two_tokenizers()
    vae = autoencoder(scaling_factor=0.13025)
    encoders = two_text_encoders((CLIPTextModel, CLIPTextModelWithProjection), tokenizers, WIDTHS, (POOLED, POOLED))
    tell_texts_apart(encoders)
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
        "tokenizer": tokenizers[0],
        "tokenizer_2": tokenizers[1],
        "unet": unet,
        "scheduler": scheduler,
    }


def save_tiny_sdxl(folder: Path, *, zeros: bool = True) -> Path:
    """The same as a diffusers folder; `zeros` is whether the negative prompt is zeros by default."""
    pipeline = StableDiffusionXLPipeline(**tiny_sdxl_parts(), force_zeros_for_empty_prompt=zeros, add_watermarker=False)
    pipeline.save_pretrained(folder)
    return folder


def fresh_sdxl() -> StableDiffusionXL:
    """The tiny model with a UNet of its own."""
    parts = tiny_sdxl_parts()
    return StableDiffusionXL(**parts | {"unet": copy.deepcopy(parts["unet"])}, source="tiny-sdxl")
