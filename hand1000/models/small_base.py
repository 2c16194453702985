"""The architecture of the small base model: Stable Diffusion's classes at a size that two CPU cores can train.

64 px images, a 4x autoencoder (16 x 16 x 8 latents), a text encoder of two layers and a UNet of 5.6 M parameters. A GPU
can train it for larger images with a wider UNet.
"""

import itertools
from collections import Counter
from collections.abc import Iterable

IMAGE_SIZE = 64
LATENT_SCALE = 4
"""Pixels per latent pixel, along a side."""
UNET_CHANNELS = (64, 96, 128)
UNET_LAYERS = 1
LATENT_CHANNELS = 8
TEXT_DIM = 128
MAX_TOKENS = 48


def build_tokenizer(texts: Iterable[str], merges: int = 400):
    """Build a CLIPTokenizer with byte-pair merges learned from `texts`; any other text falls back to bytes.

    The trainer of the tokenizers library breaks ties at random, so two runs would number the tokens differently; here
    the spelling breaks ties, because a continued training must find the same tokens.

    Args:
        texts: Texts of the training data.
        merges: Maximum number of merges; the words of a small vocabulary become one token each long before.
    """
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    split = CLIPTokenizer().backend_tokenizer
    words: Counter[tuple[str, ...]] = Counter()
    for text, count in Counter(texts).items():
        for word, _ in split.pre_tokenizer.pre_tokenize_str(split.normalizer.normalize_str(text)):
            words[(*word[:-1], f"{word[-1]}</w>")] += count
    learned = _learn_merges(words, merges)
    tokens = [*alphabet, *(f"{character}</w>" for character in alphabet)]
    tokens += dict.fromkeys(left + right for left, right in learned)
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: number for number, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=learned, model_max_length=MAX_TOKENS)


def _learn_merges(words: Counter[tuple[str, ...]], max_merges: int) -> list[tuple[str, str]]:
    """Byte-pair encoding (Sennrich et al., 2016): merge the most frequent pair of tokens repeatedly."""
    learned: list[tuple[str, str]] = []
    while len(learned) < max_merges:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in words.items():
            for pair in itertools.pairwise(word):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        learned.append(best)
        merged: Counter[tuple[str, ...]] = Counter()
        for word, count in words.items():
            merged[_merge(word, best)] += count
        words = merged
    return learned


def _merge(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """Merge every occurrence of `pair` in `word` into one token, from the left."""
    result: list[str] = []
    for token in word:
        if result and (result[-1], token) == pair:
            result[-1] += token
        else:
            result.append(token)
    return tuple(result)


def build_autoencoder(image_size: int = IMAGE_SIZE):
    """Build the AutoencoderKL: (B, 3, 64, 64) in -1..1 to latents (B, 8, 16, 16).

    It is narrow and without attention, because on two cores the number of steps per hour counts. The latents have twice
    the channels of Stable Diffusion's, because at this size a finger is two or three pixels wide.
    """
    import torch
    from diffusers import AutoencoderKL

    autoencoder = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 32),
        latent_channels=LATENT_CHANNELS,
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=image_size,
        mid_block_add_attention=False,
    )
    _zero_init_residuals(autoencoder)
    with torch.no_grad():
        # The posterior starts almost certain; with diffusers' initialization its noise is as strong as the latents.
        autoencoder.quant_conv.weight[LATENT_CHANNELS:].zero_()
        autoencoder.quant_conv.bias[LATENT_CHANNELS:] = -8.0
    return autoencoder


def _zero_init_residuals(module) -> None:
    """Initialize every residual branch to zero (Zhang et al., 2019), which speeds up the start of a training."""
    from diffusers.models.resnet import ResnetBlock2D
    from diffusers.models.transformers import Transformer2DModel
    from torch import nn

    for part in module.modules():
        if isinstance(part, ResnetBlock2D):
            nn.init.zeros_(part.conv2.weight)
        elif isinstance(part, Transformer2DModel):
            nn.init.zeros_(part.proj_out.weight)


def build_text_encoder(tokenizer):
    """Build a CLIPTextModel of two layers for the vocabulary of `tokenizer`."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_DIM,
            intermediate_size=4 * TEXT_DIM,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            projection_dim=TEXT_DIM,
        )
    )


def build_image_encoder(image_size: int = IMAGE_SIZE):
    """Build the image encoder that trains the text encoder: latents (B, 8, 16, 16) to vectors (B, TEXT_DIM)."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(LATENT_CHANNELS, 64, 3, padding=1),
        nn.GELU(),
        nn.Conv2d(64, 128, 3, stride=2, padding=1),
        nn.GroupNorm(8, 128),
        nn.GELU(),
        nn.Conv2d(128, 192, 3, stride=2, padding=1),
        nn.GroupNorm(8, 192),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(192 * (image_size // LATENT_SCALE // 4) ** 2, 256),
        nn.GELU(),
        nn.Linear(256, TEXT_DIM),
    )


def build_unet(image_size: int = IMAGE_SIZE, channels: tuple[int, int, int] = UNET_CHANNELS, layers: int = UNET_LAYERS):
    """Build the UNet2DConditionModel, with attention at 8 x 8 and 4 x 4 for 64 px, where it is cheap.

    Args:
        image_size: Side of the images in pixels.
        channels: Channels at the three resolutions, multiples of 16.
        layers: Residual blocks at each resolution.
    """
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=image_size // LATENT_SCALE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=channels,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=layers,
        norm_num_groups=16,
        attention_head_dim=4,
        cross_attention_dim=TEXT_DIM,
    )
    _zero_init_residuals(unet)
    return unet


def build_scheduler():
    """Build DDIM on the cosine schedule (Nichol & Dhariwal, 2021) with v-prediction (Salimans & Ho, 2022).

    Stable Diffusion's schedule is made for latents of 64 x 64; on 16 x 16 it would spend half of the timesteps at noise
    that hides everything. This one ends in pure noise, so the start does not reveal the color of a plain wall.
    """
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="trailing",
    )
