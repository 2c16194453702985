"""Models with random weights in the shapes of published ones, built where they compute, for `benchmarks.gpu`."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel

from benchmarks.backbone_models import SDXL_UNET, build_backbone
from hand1000.models.conditioning import Conditioning
from hand1000.models.noise_schedule import make_noise_scheduler
from hand1000.models.small_base import build_tokenizer
from hand1000.models.stable_diffusion import StableDiffusion

SCHEDULE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "prediction_type": "epsilon"}
"""The noise schedule of Stable Diffusion."""

TEXT = "a photo of a left hand, making four fingers up hand gesture"


@dataclass(frozen=True)
class Shape:
    """Sizes of a backbone.

    Attributes:
        name: Name in the table.
        latents: Shape of an image's latents, (C, h, w).
        text: Shape of a text embedding, (L, D).
        unet: Arguments of the UNet.
        vae: Arguments of the autoencoder.
        text_encoder: Arguments of the text encoder.
        pixels: Side of an image.
        pooled: Width of the pooled vector, for SDXL.
    """

    name: str
    latents: tuple[int, int, int]
    text: tuple[int, int]
    unet: dict[str, Any]
    vae: dict[str, Any]
    text_encoder: dict[str, Any]
    pixels: int
    pooled: int | None = None


SD15 = Shape(
    "SD 1.5, 512 px",
    (4, 64, 64),
    (77, 768),
    unet={"sample_size": 64, "cross_attention_dim": 768},
    vae={
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (128, 256, 512, 512),
        "layers_per_block": 2,
        "sample_size": 512,
    },
    text_encoder={
        "vocab_size": 49408,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 77,
    },
    pixels=512,
)

SDXL = Shape(
    "SDXL, 1024 px", (4, 128, 128), (77, 2048), unet=SDXL_UNET, vae={}, text_encoder={}, pixels=1024, pooled=1280
)

TINY = Shape(
    "tiny",
    (4, 8, 8),
    (16, 16),
    unet={
        "sample_size": 8,
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "attention_head_dim": 2,
        "cross_attention_dim": 16,
    },
    vae={
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "block_out_channels": (8, 8, 8),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "sample_size": 32,
    },
    text_encoder={
        "vocab_size": 1024,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 16,
    },
    pixels=32,
)


def build_unet(shape: Shape, device: Any, dtype: torch.dtype) -> UNet2DConditionModel:
    """Build a frozen UNet with random weights on `device`."""
    with default_dtype(dtype), torch.device(device):
        return UNet2DConditionModel(**shape.unet).requires_grad_(False).eval()


def build_base(shape: Shape, device: torch.device, dtype: torch.dtype, *, unet_only: bool = True) -> Any:
    """Build a base model with random weights; without `unet_only` it has all parts, in `dtype` too."""
    torch.manual_seed(0)
    if shape.pooled is not None:
        return build_backbone("sdxl", device, dtype)
    unet = build_unet(shape, device, dtype)
    base = StableDiffusion(None, None, None, unet, make_noise_scheduler(SCHEDULE), "random")
    if unet_only:
        return base
    tokenizer = build_tokenizer([TEXT])
    tokenizer.model_max_length = shape.text[0]
    with default_dtype(dtype), device:
        vae = AutoencoderKL(**shape.vae).requires_grad_(False).eval()
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    text_encoder = CLIPTextModel(CLIPTextConfig(**shape.text_encoder, **ids)).to(device, dtype)
    return dataclasses.replace(
        base, vae=vae, text_encoder=text_encoder.requires_grad_(False).eval(), tokenizer=tokenizer
    )


def random_conditioning(shape: Shape, count: int) -> Conditioning:
    """Conditioning of a training set, on the CPU."""
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randn(count, *shape.text, generator=generator)
    return Conditioning(tokens, None if shape.pooled is None else torch.zeros(count, shape.pooled))


def extra_inputs(shape: Shape, count: int, device: Any) -> dict[str, Any]:
    """SDXL's pooled vectors and sizes of `count` images, with which its UNet is called too; nothing for SD 1.5."""
    if shape.pooled is None:
        return {}
    sizes = torch.full((count, 6), float(shape.pixels), device=device)
    sizes[:, 2:4] = 0
    return {"added_cond_kwargs": {"text_embeds": torch.zeros(count, shape.pooled, device=device), "time_ids": sizes}}


class default_dtype:  # noqa: N801 (a context manager, named as a function)
    """Context in which new floating-point tensors have another dtype."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype

    def __enter__(self) -> None:
        self._former = torch.get_default_dtype()
        torch.set_default_dtype(self._dtype)

    def __exit__(self, *error: object) -> None:
        torch.set_default_dtype(self._former)


@dataclass(frozen=True)
class ImageFlops:
    """Floating-point operations of one image, a multiplication and an addition being two; see `benchmarks.cost`."""

    forward: float
    train: float
    backpropagate: float
    decode: float


def count_flops(shape: Shape) -> ImageFlops:
    """Count the operations of the UNet's passes on meta tensors, without recomputation."""
    with torch.device("meta"):
        unet, vae = UNet2DConditionModel(**shape.unet), AutoencoderKL(**shape.vae) if shape.vae else None
        latents, text, further = (
            torch.empty(1, *shape.latents),
            torch.empty(1, *shape.text),
            extra_inputs(shape, 1, "meta"),
        )
        timestep = torch.zeros(1, dtype=torch.long)

        def count(function: Any) -> float:
            with FlopCounterMode(display=False) as counter:
                function()
            return float(counter.get_total_flops())

        train = count(lambda: unet(latents, timestep, text, **further).sample.sum().backward())
        unet.requires_grad_(False)
        embedding = text.clone().requires_grad_(True)
        backpropagate = count(lambda: unet(latents, timestep, embedding, **further).sample.sum().backward())
        with torch.no_grad():
            forward = count(lambda: unet(latents, timestep, text, **further))
            decode = 0.0 if vae is None else count(lambda: vae.decode(latents))
    return ImageFlops(forward, train, backpropagate, decode)
