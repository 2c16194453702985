"""Backbones with random weights in the shapes of the released models: no text encoder and no autoencoder."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import SD3Transformer2DModel, UNet2DConditionModel, ZImageTransformer2DModel

from hand1000.models.backbone import Backbone
from hand1000.models.base_model import load_backbone_class
from hand1000.models.conditioning import Conditioning

FLOW_SCHEDULE = {"shift": 3.0}
SCHEDULE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "prediction_type": "epsilon"}


@dataclass(frozen=True)
class Shape:
    """Sizes of a backbone: its denoiser, its tokens (L, D), its pooled vector, and the side of an image in pixels."""

    title: str
    denoiser_class: type
    denoiser: dict[str, Any]
    tokens: tuple[int, int]
    pooled: int | None
    pixels: int


SDXL_UNET = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}

SD35_MEDIUM = {
    "sample_size": 128,
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "num_layers": 24,
    "num_attention_heads": 24,
    "attention_head_dim": 64,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 384,
    "dual_attention_layers": tuple(range(13)),
    "qk_norm": "rms_norm",
}

Z_IMAGE = {
    "in_channels": 16,
    "dim": 3840,
    "n_layers": 30,
    "n_refiner_layers": 2,
    "n_heads": 30,
    "n_kv_heads": 30,
    "cap_feat_dim": 2560,
    "axes_dims": [32, 48, 48],
    "axes_lens": [1536, 512, 512],
}

SHAPES = {
    "sd": Shape(
        "Stable Diffusion 1.5",
        UNet2DConditionModel,
        {"sample_size": 64, "cross_attention_dim": 768},
        (77, 768),
        None,
        512,
    ),
    "sdxl": Shape("Stable Diffusion XL", UNet2DConditionModel, SDXL_UNET, (77, 2048), 1280, 1024),
    "sd3": Shape("Stable Diffusion 3.5 medium", SD3Transformer2DModel, SD35_MEDIUM, (77 + 256, 4096), 2048, 1024),
    # A caption of up to 128 tokens: the transformer reads as many as there are, rounded up to a multiple of 32.
    "zimage": Shape("Z-Image", ZImageTransformer2DModel, Z_IMAGE, (128, 2560), None, 1024),
}
"""The released models by the name of their backbone."""


def build_denoiser(name: str, device: Any, dtype: torch.dtype, **changes: Any) -> Any:
    """Build a frozen denoiser with random weights of `dtype`, made on `device`; `changes` are of its arguments."""
    shape = SHAPES[name]
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return shape.denoiser_class(**shape.denoiser | changes).requires_grad_(False).eval()
    finally:
        torch.set_default_dtype(torch.float32)


def build_backbone(name: str, device: Any, dtype: torch.dtype) -> Backbone:
    """Build a backbone whose denoiser has random weights, see `build_denoiser`; its text encoders are None."""
    backbone_class = load_backbone_class(name)
    parts: dict[str, Any] = dict.fromkeys(backbone_class.part_names())
    parts |= {
        backbone_class.denoiser_name: build_denoiser(name, device, dtype),
        "scheduler": backbone_class.make_scheduler(FLOW_SCHEDULE if name in ("sd3", "zimage") else SCHEDULE),
    }
    # Of the autoencoder only the sizes are read: 8 pixels are one latent.
    sizes = {"block_out_channels": (128, 256, 512, 512), "sample_size": SHAPES[name].pixels}
    parts["vae"] = SimpleNamespace(config=SimpleNamespace(**sizes))
    return backbone_class.of_parts(parts, {}, "random")


def random_conditioning(name: str, count: int = 1) -> Conditioning:
    """Random conditioning of `count` images."""
    shape = SHAPES[name]
    pooled = None if shape.pooled is None else torch.randn(count, shape.pooled)
    return Conditioning(torch.randn(count, *shape.tokens), pooled)
