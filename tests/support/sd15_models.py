"""Stable Diffusion 1.5's configuration with random weights: its true size, without its download."""

import torch
from diffusers import AutoencoderKL
from transformers import CLIPTextConfig, CLIPTextModel

from benchmarks.backbone_models import build_denoiser
from hand1000.models.small_base import build_scheduler, build_tokenizer
from hand1000.models.stable_diffusion import StableDiffusion
from tests.support.tiny_models import VOCABULARY


def random_sd15(sample_size: int) -> StableDiffusion:
    """A frozen base of 859.5 million UNet weights, for images of 8 * `sample_size` px."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer(VOCABULARY)
    tokenizer.model_max_length = 77
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        sample_size=8 * sample_size,
    )
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            projection_dim=768,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    # As in the trained one: a layer norm without a bias has no plane of its own.
    torch.nn.init.normal_(text_encoder.final_layer_norm.bias, std=0.3)
    for module in (vae, text_encoder):
        module.requires_grad_(False).eval()
    return StableDiffusion(
        vae,
        text_encoder,
        tokenizer,
        build_denoiser("sd", "cpu", torch.float32, sample_size=sample_size),
        build_scheduler(),
        "random",
    )
