"""diffusers' blocks of UNets and autoencoders, without the passes over memory that change no bit of a result.

A block of diffusers divides its sum by a scale that is 1, copies tensors from channels-last to the default memory
format and back, and in sampling allocates memory for every sum. The classes here replace those of an existing module,
whose weights, names and configuration stay as they are; an option that they do not know leaves diffusers' own code in
place.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import nn
from torch.nn.functional import interpolate, scaled_dot_product_attention, silu

_TextCache = dict[Attention, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
"""A text with its keys and values, by the cross-attention that has computed them."""

_text_cache: ContextVar[_TextCache | None] = ContextVar("text_cache", default=None)


@contextmanager
def cached_text() -> Iterator[None]:
    """Let each cross-attention compute keys and values of a text once while this context lasts, without gradients.

    Threads have contexts of their own. A text is recognized by its tensor, which must not be changed meanwhile.
    """
    token = _text_cache.set({})
    try:
        yield
    finally:
        _text_cache.reset(token)


class LeanResnetBlock(ResnetBlock2D):
    """A residual block in which no sum is scaled by 1, and no tensor changes its memory format."""

    def forward(self, input_tensor: torch.Tensor, temb: torch.Tensor | None, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return the block's output, (B, C', h, w), of its input, (B, C, h, w), and the time's embedding, (B, D)."""
        hidden = self.conv1(_activate(self.norm1(input_tensor)))
        if self.time_emb_proj is not None and temb is not None:
            hidden = _add_to(hidden, self.time_emb_proj(silu(temb))[:, :, None, None])
        hidden = self.conv2(self.dropout(_activate(self.norm2(hidden))))
        residual = input_tensor if self.conv_shortcut is None else self.conv_shortcut(input_tensor)
        # A sum has the memory format of its first part, on which the kernels of the next block depend.
        return _add_to(hidden, residual) if hidden.stride() == residual.stride() else residual + hidden


class LeanTransformer(Transformer2DModel):
    """A transformer over the pixels that hands its output to its last convolution in the format of its input."""

    def _get_output_for_continuous_inputs(
        self,
        hidden_states: torch.Tensor,
        residual: torch.Tensor,
        batch_size: int,
        height: int,
        width: int,
        inner_dim: int,
    ) -> torch.Tensor:
        layout = torch.contiguous_format if residual.is_contiguous() else torch.channels_last
        pixels = hidden_states.reshape(batch_size, height, width, inner_dim).permute(0, 3, 1, 2)
        return _add_to(self.proj_out(pixels.contiguous(memory_format=layout)), residual)


class LeanUpsample(Upsample2D):
    """Nearest neighbors and a convolution, on a processor without a change of the memory format."""

    def forward(
        self, hidden_states: torch.Tensor, output_size: int | None = None, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Return (B, C', 2h, 2w), or of `output_size`, of (B, C, h, w)."""
        keeps_format = self.conv.weight.is_contiguous(memory_format=torch.channels_last)
        if hidden_states.device.type != "cpu" or not keeps_format:
            # diffusers copies large batches for a kernel of CUDA, which decides the format of the next block's tensors.
            output: torch.Tensor = super().forward(hidden_states, output_size)
            return output
        scale_factor = 2.0 if output_size is None else None
        upsampled = interpolate(hidden_states, size=output_size, scale_factor=scale_factor, mode="nearest")
        result: torch.Tensor = self.conv(upsampled)
        return result


class LeanAttnProcessor(AttnProcessor2_0):
    """PyTorch's fused attention, without a division by 1, and with `cached_text`."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Return the attention's output, (B, L, C), of (B, L, C) over the text (B, M, D) or over itself."""
        if attention_mask is not None or hidden_states.ndim != 3 or not _is_plain(attn):
            arguments = (attn, hidden_states, encoder_hidden_states, attention_mask, temb)
            result: torch.Tensor = super().__call__(*arguments, **kwargs)
            return result
        query = _split_heads(attn, attn.to_q(hidden_states))
        if encoder_hidden_states is None:
            key, value = _keys_and_values(attn, hidden_states)
        else:
            key, value = _text_keys_and_values(attn, encoder_hidden_states)
        attended = scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        output: torch.Tensor = attn.to_out[1](attn.to_out[0](attended))
        return output


def use_lean_blocks(module: nn.Module) -> None:
    """Let the blocks of a UNet or an autoencoder compute the same in fewer passes, in place.

    Attention processors of other kinds, which the caller has chosen, stay.
    """
    for part in module.modules():
        if type(part) is ResnetBlock2D and _is_plain_resnet(part):
            part.__class__ = LeanResnetBlock
        elif type(part) is Transformer2DModel and part.is_input_continuous and not part.use_linear_projection:
            part.__class__ = LeanTransformer
        elif type(part) is Upsample2D and part.name == "conv" and part.interpolate and part.norm is None:
            if part.use_conv and not part.use_conv_transpose:
                part.__class__ = LeanUpsample
        elif isinstance(part, Attention) and type(part.processor) is AttnProcessor2_0:
            part.set_processor(LeanAttnProcessor())


def _is_plain_resnet(block: ResnetBlock2D) -> bool:
    return (
        block.upsample is None
        and block.downsample is None
        and block.time_embedding_norm == "default"
        and not block.skip_time_act
        and block.output_scale_factor == 1
        and isinstance(block.nonlinearity, nn.SiLU)
    )


def _is_plain(attention: Attention) -> bool:
    """Whether an attention has none of the parts that Stable Diffusion's lacks."""
    parts = (attention.spatial_norm, attention.group_norm, attention.norm_q, attention.norm_k)
    options = (attention.norm_cross, attention.residual_connection)
    return all(part is None for part in parts) and not any(options) and attention.rescale_output_factor == 1


def _keys_and_values(attn: Attention, source: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return _split_heads(attn, attn.to_k(source)), _split_heads(attn, attn.to_v(source))


def _text_keys_and_values(attn: Attention, text: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    cache = None if torch.compiler.is_compiling() or torch.is_grad_enabled() else _text_cache.get()
    if cache is None:
        return _keys_and_values(attn, text)
    if attn not in cache or cache[attn][0] is not text:
        cache[attn] = (text, *_keys_and_values(attn, text))
    return cache[attn][1:]


def _split_heads(attn: Attention, tensor: torch.Tensor) -> torch.Tensor:
    """Return (B, H, L, C / H) of (B, L, C)."""
    return tensor.unflatten(2, (attn.heads, -1)).transpose(1, 2)


def _activate(tensor: torch.Tensor) -> torch.Tensor:
    """SiLU, in place where no gradient needs the input."""
    return silu(tensor, inplace=not tensor.requires_grad)


def _add_to(tensor: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The sum, in place of the first where no gradient is recorded; the first is the caller's own."""
    return tensor + other if torch.is_grad_enabled() else tensor.add_(other)
