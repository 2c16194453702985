"""Random-weight models of Stable Diffusion's real classes, small enough for a test: nothing can be downloaded here."""

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from hand1000.models.fusion import GestureFusion
from hand1000.models.small_base import build_scheduler, build_tokenizer
from hand1000.models.stable_diffusion import StableDiffusion
from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline, build_pipeline
from hand1000.training.encoded_dataset import EncodedDataset

VOCABULARY = ["a photo of a left hand in front of a blue wall, making four fingers up hand gesture", "a red hand"]
TEXTS = ["a photo of a left hand, making four fingers up hand gesture", "a red hand"]
"""Texts that the text encoder reads to their ends."""

LATENT, WIDTH, TOKENS = 8, 16, 16


def clip_config(tokenizer: CLIPTokenizer, width: int, **config: Any) -> CLIPTextConfig:
    """The configuration of a text encoder that reads `TOKENS` tokens."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=width,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **config,
    )


@cache
def tiny_base() -> StableDiffusion:
    """A base of 32 px images and (4, 8, 8) latents, frozen; shared, so tests must not change it."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer(VOCABULARY)
    tokenizer.model_max_length = TOKENS
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=4 * LATENT,
    )
    text_encoder = CLIPTextModel(clip_config(tokenizer, WIDTH, num_hidden_layers=1))
    unet = UNet2DConditionModel(
        sample_size=LATENT,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=2,
        cross_attention_dim=WIDTH,
    )
    for module in (vae, text_encoder, unet):
        module.requires_grad_(False).eval()
    return StableDiffusion(vae, text_encoder, tokenizer, unet, build_scheduler(), "tiny")


def fresh_base() -> StableDiffusion:
    """The same with a UNet of its own, which may be trained."""
    return dataclasses.replace(tiny_base(), unet=copy.deepcopy(tiny_base().unet))


def save_tiny_base(folder: Path) -> Path:
    """The same as a diffusers folder."""
    tiny_base().stock_pipeline().save_pretrained(folder)
    return folder


def save_tiny_model(folder: Path, seed: int = 0) -> Path:
    """A `Hand1000Pipeline` without fusion over the tiny base, its UNet drawn from `seed`."""
    base = tiny_base()
    torch.manual_seed(seed)
    Hand1000Pipeline(
        base.with_denoiser(UNet2DConditionModel.from_config(base.unet.config)),
        mu=0.6,
        guidance_scale=2.0,
        eta=0.5,
        num_inference_steps=2,
    ).save_pretrained(folder)
    return folder


def save_gesture_model(folder: Path) -> Path:
    """A `Hand1000Pipeline` with all parts: a fusion for `four`, and a guidance UNet."""
    sampler = {"mu": 0.5, "guidance_scale": 2.0, "eta": 0.0, "num_inference_steps": 2, "autoguidance_scale": 2.0}
    fusion = GestureFusion(WIDTH, gestures=["four"])
    build_pipeline(tiny_base(), tuned=fresh_base().unet, fusion=fusion, **sampler).save_pretrained(folder)
    return folder


def encoded_dataset(
    latents: torch.Tensor, text_embeddings: torch.Tensor, gestures: Sequence[str] | None = None
) -> EncodedDataset:
    """A dataset of these latents and embeddings; every image is of another person and shows `four` by default."""
    count = len(latents)
    return EncodedDataset(
        latents=latents,
        text_embeddings=text_embeddings,
        empty_embedding=torch.zeros_like(text_embeddings[0]),
        file_names=[f"{index}.png" for index in range(count)],
        captions=["a hand"] * count,
        texts=["a hand"] * count,
        user_ids=[f"user-{index}" for index in range(count)],
        gestures=["four"] * count if gestures is None else list(gestures),
    )


class SimulatedKill(Exception):  # noqa: N818 (a kill, not an error)
    """Simulates kill -9: whatever is not saved by then is lost."""


class CrashingCheckpointStore:
    """A checkpoint store in a folder whose process crashes right after save number `crash_after`."""

    def __init__(self, folder: Path, crash_after: int | None = None) -> None:
        self.folder, self.left = folder, crash_after

    def workspace(self) -> AbstractContextManager[str]:
        """See `hand1000.core.progress.CheckpointStore`."""
        return TemporaryDirectory()

    def restore(self, directory: Path, *, read_only: bool = False) -> bool:
        """See `hand1000.core.progress.CheckpointStore`."""
        import shutil

        if not self.folder.is_dir():
            return False
        shutil.copytree(self.folder, directory, dirs_exist_ok=True)
        return True

    def save(self, directory: Path, digests: Mapping[str, str] | None = None) -> None:
        """See `hand1000.core.progress.CheckpointStore`."""
        import shutil

        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(directory, self.folder)
        if self.left is not None:
            self.left -= 1
            if not self.left:
                raise SimulatedKill
