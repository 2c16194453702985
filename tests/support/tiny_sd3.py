"""A Stable Diffusion 3.5 of its real classes with random weights, with or without T5, small enough for a test."""

import copy
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import SD3Transformer2DModel
from transformers import CLIPTextModelWithProjection, T5Config, T5EncoderModel, T5Tokenizer

from hand1000.models.flow_schedule import make_flow_scheduler
from hand1000.models.stable_diffusion_3 import StableDiffusion3
from tests.support.tiny_models import LATENT, VOCABULARY
from tests.support.tiny_parts import autoencoder, tell_texts_apart, two_text_encoders, two_tokenizers

CLIP_WIDTHS, POOLED, SD3_WIDTH = (12, 16), (6, 10), 32
"""Widths of the text encoders of CLIP and of their pooled vectors, and of T5 and the tokens."""

CHANNELS = 4


@cache
def tiny_sd3_parts(t5: bool = True) -> dict[str, Any]:
    """The parts of a model of 16 px images and (4, 8, 8) latents, frozen; shared, so tests must not change them."""
    torch.manual_seed(0)
    tokenizers = two_tokenizers()
    vae = autoencoder(
        latent_channels=CHANNELS,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    encoders = two_text_encoders((CLIPTextModelWithProjection,) * 2, tokenizers, CLIP_WIDTHS, POOLED)
    words = sorted(set(" ".join(VOCABULARY).replace(",", " ").split()))
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), (",", -3.0), *[(f"▁{word}", -1.0) for word in words]]
    tokenizer_3 = T5Tokenizer(vocab=pieces, extra_ids=0)
    encoder_3 = T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer_3),
            d_model=SD3_WIDTH,
            d_kv=8,
            d_ff=16,
            num_layers=1,
            num_heads=2,
            feed_forward_proj="gated-gelu",
        )
    )
    tell_texts_apart([*encoders, encoder_3])
    transformer = SD3Transformer2DModel(
        sample_size=LATENT,
        patch_size=2,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=8,
        joint_attention_dim=SD3_WIDTH,
        caption_projection_dim=16,
        pooled_projection_dim=sum(POOLED),
        pos_embed_max_size=12,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    for module in (vae, *encoders, encoder_3, transformer):
        module.requires_grad_(False).eval()
    return {
        "transformer": transformer,
        "scheduler": make_flow_scheduler({"num_train_timesteps": 1000, "shift": 3.0}),
        "vae": vae,
        "text_encoder": encoders[0],
        "tokenizer": tokenizers[0],
        "text_encoder_2": encoders[1],
        "tokenizer_2": tokenizers[1],
        "text_encoder_3": encoder_3 if t5 else None,
        "tokenizer_3": tokenizer_3 if t5 else None,
    }


def fresh_sd3(t5: bool = True) -> StableDiffusion3:
    """The tiny model with a transformer of its own, which may be changed."""
    parts = tiny_sd3_parts(t5)
    return StableDiffusion3(**parts | {"transformer": copy.deepcopy(parts["transformer"])}, source="tiny-sd3")


def save_tiny_sd3(folder: Path, *, t5: bool = True) -> Path:
    """The same as a diffusers folder."""
    StableDiffusion3(**tiny_sd3_parts(t5)).stock_pipeline().save_pretrained(folder)
    return folder
