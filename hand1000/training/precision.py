"""How the UNet is computed in training: precision, kernels, memory."""

from contextlib import AbstractContextManager, nullcontext

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

from hand1000.config.settings import ComputeSettings
from hand1000.core.errors import Hand1000Error

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def weight_dtype(compute: ComputeSettings) -> torch.dtype:
    """Of weights that are not trained."""
    return DTYPES[compute.precision]


def configure_unet(unet: UNet2DConditionModel, compute: ComputeSettings, *, frozen: bool) -> None:
    """Make `unet` compute as the settings say, in place.

    Args:
        unet: in float32, or in the precision if it is frozen.
        compute: precision is applied to the weights only if they are frozen; see `autocast_context` for the rest.
        frozen: whether its own weights stay as they are: in Stage II, and in Stage III beside adapters.
    """
    unet.to(memory_format=torch.channels_last if compute.channels_last else torch.contiguous_format)
    unet.set_attn_processor(AttnProcessor2_0() if compute.attention == "sdpa" else AttnProcessor())
    if compute.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    else:
        unet.disable_gradient_checkpointing()
    if frozen:
        for parameter in unet.parameters():
            parameter.data = parameter.data.to(weight_dtype(compute))
    if compute.compile:
        unet.compile()


def autocast_context(device: torch.device, compute: ComputeSettings) -> AbstractContextManager:
    """The context in which the UNet is called: automatic mixed precision, or nothing."""
    if compute.precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, DTYPES[compute.precision])


def make_grad_scaler(device: torch.device, compute: ComputeSettings) -> torch.amp.GradScaler:
    """Keeps the small gradients of fp16 from vanishing; does nothing in the other precisions."""
    return torch.amp.GradScaler(device.type, enabled=compute.precision == "fp16")


def build_optimizer(
    kind: str, parameters: list[torch.Tensor], *, learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """AdamW over `parameters`.

    Args:
        kind: "adamw", one fused kernel a step, or "adamw_8bit", whose two moments take a byte a weight each.

    Raises:
        Hand1000Error: 8 bits without bitsandbytes or a GPU.
    """
    if kind == "adamw":
        return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay, fused=True)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise Hand1000Error("stage3.optimizer: adamw_8bit needs bitsandbytes: pip install 'hand1000[gpu]'") from error
    if parameters[0].device.type != "cuda":
        raise Hand1000Error(f"stage3.optimizer: adamw_8bit needs a GPU (this is {parameters[0].device}); choose adamw")
    return AdamW8bit(parameters, lr=learning_rate, weight_decay=weight_decay)
