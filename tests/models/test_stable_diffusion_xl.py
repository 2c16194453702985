"""Stable Diffusion XL: its negative prompts, its pooled vector, and the precision of its autoencoder."""

import dataclasses
from pathlib import Path

import torch

from hand1000.models.base_model import load_base_model, read_resolution
from hand1000.models.fusion import fused_null_embedding
from hand1000.models.low_rank_fusion import LowRankFusion
from hand1000.models.stable_diffusion_xl import StableDiffusionXL
from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline, load_pipeline
from tests.support.tiny_models import TEXTS
from tests.support.tiny_sdxl import POOLED, XL_WIDTH, fresh_sdxl, save_tiny_sdxl


def test_zeroed_negatives_are_trained_as_they_are_sampled() -> None:
    base = dataclasses.replace(fresh_sdxl(), force_zeros_for_empty_prompt=True)
    empty = base.encode_text([""])
    null = base.null_conditioning(empty)
    assert empty.tokens.any() and not null.tokens.any() and null.pooled is not None and not null.pooled.any()
    generator = torch.Generator().manual_seed(0)
    fusion = LowRankFusion(XL_WIDTH, ("four",), 0, 3)
    fusion.initialize(torch.randn(1, 63, generator=generator), empty.tokens, generator)
    assert not fused_null_embedding(null.tokens[0], fusion, 0.3).any()
    kept = dataclasses.replace(base, force_zeros_for_empty_prompt=False).null_conditioning(empty)
    assert torch.equal(kept.tokens, empty.tokens) and kept.pooled is empty.pooled


def test_the_prediction_depends_on_the_pooled_vector() -> None:
    base, latents = fresh_sdxl(), torch.randn(1, *fresh_sdxl().latent_shape)
    conditioning = base.encode_text(TEXTS)
    other = dataclasses.replace(conditioning[:1], pooled=conditioning[1:].pooled)
    with torch.no_grad():
        first, second = (base.predict(latents, torch.tensor(500), each) for each in (conditioning[:1], other))
    assert conditioning.pooled is not None and conditioning.pooled.shape == (2, POOLED)
    assert not torch.allclose(first, second, atol=1e-4)


def test_a_folder_keeps_its_negatives_and_the_precision_of_its_vae(tmp_path: Path) -> None:
    folder = str(save_tiny_sdxl(tmp_path / "base", zeros=False))
    base = load_base_model(folder)
    assert isinstance(base, StableDiffusionXL) and base.text_dim == XL_WIDTH
    assert base.resolution == read_resolution(folder) == 16
    Hand1000Pipeline(base).save_pretrained(tmp_path / "model")
    assert load_pipeline(tmp_path / "model").backbone.force_zeros_for_empty_prompt is False
    half = Hand1000Pipeline.from_pretrained(tmp_path / "model", torch_dtype=torch.float16)
    assert half.unet.dtype == torch.float16 and half.vae.dtype == torch.float32  # the released one overflows
