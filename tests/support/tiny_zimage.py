"""A Z-Image of its real classes with random weights, small enough for a test."""

import copy
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import ZImageTransformer2DModel
from tokenizers import pre_tokenizers
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3Model

from hand1000.captions.chat_tokenizer import CHAT_TOKENS
from hand1000.models.flow_schedule import make_flow_scheduler
from hand1000.models.z_image import ZImage
from tests.support.tiny_parts import autoencoder, tell_texts_apart

Z_WIDTH, CHANNELS = 12, 4
"""Width of Qwen3's hidden states, and channels of the latents."""

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
    "{% if enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}"
)
"""What the template of Qwen3 does with the message of a user."""

MARKS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
WORDS = ["user", "assistant", "photo", "hand", "making", "four", "fingers", "gesture", "front", "wall", "left"]


def build_qwen_tokenizer() -> Qwen2Tokenizer:
    """A tokenizer of bytes and some words, with the marks and the chat template of Qwen3."""
    tokens, merges = sorted(pre_tokenizers.ByteLevel.alphabet()), []
    for word in WORDS:
        for end in range(2, len(word) + 1):
            if word[:end] not in tokens:
                tokens.append(word[:end])
                merges.append((word[: end - 1], word[end - 1]))
    vocabulary = {token: number for number, token in enumerate([*tokens, *MARKS])}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=merges, extra_special_tokens=MARKS[1:])
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


@cache
def tiny_zimage_parts() -> dict[str, Any]:
    """The parts of a model of 16 px images and (4, 8, 8) latents, frozen; shared, so tests must not change them."""
    torch.manual_seed(0)
    tokenizer = build_qwen_tokenizer()
    vae = autoencoder(
        latent_channels=CHANNELS,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    text_encoder = Qwen3Model(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=Z_WIDTH,
            intermediate_size=16,
            num_hidden_layers=3,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            max_position_embeddings=2 * CHAT_TOKENS,
        )
    )
    tell_texts_apart([text_encoder])
    transformer = ZImageTransformer2DModel(
        in_channels=CHANNELS,
        dim=16,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=Z_WIDTH,
        axes_dims=[4, 2, 2],
        axes_lens=[CHAT_TOKENS + 32, 16, 16],
    )
    # The tokens that fill up text and image start at zero, and the norms at one.
    for weights in transformer.parameters():
        if weights.ndim < 2 or len(weights) == 1:
            weights.data += 0.3 * torch.randn(weights.shape)
    for module in (vae, text_encoder, transformer):
        module.requires_grad_(False).eval()
    return {
        "scheduler": make_flow_scheduler({"num_train_timesteps": 1000, "shift": 6.0}),
        "vae": vae,
        "text_encoder": text_encoder,
        "tokenizer": tokenizer,
        "transformer": transformer,
    }


def fresh_zimage() -> ZImage:
    """The tiny model with a transformer of its own, which may be changed."""
    parts = tiny_zimage_parts()
    return ZImage(**parts | {"transformer": copy.deepcopy(parts["transformer"])}, source="tiny-zimage")


def save_tiny_zimage(folder: Path) -> Path:
    """The same as a diffusers folder."""
    fresh_zimage().stock_pipeline().save_pretrained(folder)
    return folder
