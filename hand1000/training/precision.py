"""Precision, kernels, memory and optimizer of the denoiser in training."""

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from diffusers import ModelMixin, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

from hand1000.config.settings import ComputeSettings
from hand1000.core.errors import Hand1000Error
from hand1000.models.lean_blocks import use_lean_blocks

logger = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def weight_dtype(compute: ComputeSettings) -> torch.dtype:
    """The dtype of frozen weights."""
    return DTYPES[compute.precision]


def configure_denoiser(denoiser: ModelMixin, compute: ComputeSettings, *, frozen: bool) -> None:
    """Set memory format, attention kernels and gradient checkpointing of a denoiser, in place.

    Only `frozen` weights, those of Stage II and beside adapters, are cast to the run's precision. The attention of a
    transformer has processors of its own, which always use PyTorch's fused kernel.
    """
    denoiser.to(memory_format=torch.channels_last if compute.channels_last else torch.contiguous_format)
    if isinstance(denoiser, UNet2DConditionModel):
        denoiser.set_attn_processor(AttnProcessor2_0() if compute.attention == "sdpa" else AttnProcessor())
    use_lean_blocks(denoiser)
    if compute.gradient_checkpointing:
        denoiser.enable_gradient_checkpointing()
    else:
        denoiser.disable_gradient_checkpointing()
    if frozen:
        for parameter in denoiser.parameters():
            parameter.data = parameter.data.to(weight_dtype(compute))
    if compute.compile:
        compile_denoiser(denoiser)


def compile_denoiser(denoiser: torch.nn.Module) -> None:
    """Compile the denoiser when it is first called, in place; where that fails, say so once and go on without it."""
    denoiser.compile()
    compiled = denoiser._compiled_call_impl
    assert compiled is not None

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return compiled(*args, **kwargs)
        except torch._dynamo.exc.TorchDynamoException as error:
            # A processor needs a C++ compiler, a GPU a C compiler and Triton.
            logger.warning("compute.compile: nothing is compiled (%s)", str(error).partition("\n")[0][:200])
        denoiser._compiled_call_impl = None
        return denoiser(*args, **kwargs)

    denoiser._compiled_call_impl = call


def autocast_context(device: torch.device, compute: ComputeSettings) -> AbstractContextManager:
    """Automatic mixed precision for the denoiser's forward pass; a null context in float32."""
    if compute.precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, DTYPES[compute.precision])


def build_optimizer(
    kind: str, parameters: list[torch.Tensor], *, learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Build AdamW with one fused kernel, `adamw`, or with moments of one byte per weight, `adamw_8bit`.

    Raises:
        Hand1000Error: adamw_8bit without bitsandbytes or without a GPU.
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
