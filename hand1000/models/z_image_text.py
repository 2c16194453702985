"""The text of Z-Image: the hidden states of Qwen3, and the norm through which they enter the transformer.

Z-Image normalizes each token and then maps it linearly, `cap_embedder`. The norm follows no linear map, so that only a
fusion behind it can be folded into the weights. Here the tokens e are therefore the normalized ones: `move_out_norm`
lets the transformer take them as they are, and `restore_norm` makes it a transformer of diffusers again.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.normalization import RMSNorm
from torch import nn

from hand1000.captions.chat_tokenizer import CHAT_TOKENS, tokenize_chat


class MovedNorm(nn.Module):
    """Replaces a norm whose input is normalized before.

    The weight keeps its name in the files of the transformer. It is a buffer, since it takes part in no training: the
    tokens are computed once.
    """

    weight: torch.Tensor

    def __init__(self, norm: RMSNorm) -> None:
        super().__init__()
        self.eps = norm.eps
        self.register_buffer("weight", norm.weight.detach())

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the tokens as they are."""
        return tokens

    def to_norm(self) -> RMSNorm:
        """Return the norm itself, with the same weight."""
        norm = RMSNorm(len(self.weight), self.eps)
        norm.weight = nn.Parameter(self.weight, requires_grad=False)
        return norm


def move_out_norm(transformer: Any) -> None:
    """Replace the norm of the text in a transformer by a `MovedNorm`, in place, unless that has been done."""
    if isinstance(norm := transformer.cap_embedder[0], RMSNorm):
        transformer.cap_embedder[0] = MovedNorm(norm)


def restore_norm(transformer: Any) -> Any:
    """Return a transformer with the norm in its place and otherwise the same modules and weights."""
    restored = copy.copy(transformer)
    restored._modules = dict(transformer._modules)
    norm, linear = transformer.cap_embedder
    restored.cap_embedder = nn.Sequential(norm.to_norm(), linear)
    return restored


@torch.no_grad()
def encode_chats(
    text_encoder: Any, tokenizer: Any, texts: Sequence[str], norm: MovedNorm
) -> tuple[torch.Tensor, torch.Tensor]:
    """Encode prompts as chats.

    Every text is encoded once and by itself, so that its embedding depends on no other text.

    Args:
        text_encoder: Qwen3.
        tokenizer: Its tokenizer.
        texts: N texts.
        norm: Norm of the transformer.

    Returns:
        The normalized second to last hidden states, (N, CHAT_TOKENS, D), zeros after the last token, and the number of
        tokens of each text, (N,) int64; both on the text encoder's device.
    """
    device = text_encoder.device
    module = norm.to_norm().to(device, text_encoder.dtype)
    embeddings: dict[str, torch.Tensor] = {}
    for text in sorted(set(texts)):
        ids = torch.tensor([tokenize_chat(tokenizer, text)], device=device)
        (hidden,) = text_encoder(ids, output_hidden_states=True, use_cache=False).hidden_states[-2]
        embeddings[text] = module(hidden)
    lengths = torch.tensor([len(embeddings[text]) for text in texts], device=device)
    tokens = [nn.functional.pad(embeddings[text], (0, 0, 0, CHAT_TOKENS - len(embeddings[text]))) for text in texts]
    return torch.stack(tokens), lengths
