"""Stable Diffusion 3: its parts, its conditioning and its predictions against the stock pipeline's."""

import copy
import dataclasses
import json
from pathlib import Path

import pytest
import torch

from hand1000.core.errors import Hand1000Error
from hand1000.models.base_model import load_base_model, read_resolution
from hand1000.models.low_rank_fusion import LowRankFusion
from hand1000.models.stable_diffusion_3 import T5_TOKENS, StableDiffusion3
from hand1000.pipelines.model_folder import check_sampler_of_folder
from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline, load_pipeline
from tests.support.tiny_models import LATENT, TEXTS, TOKENS
from tests.support.tiny_sd3 import POOLED, SD3_WIDTH, fresh_sd3, save_tiny_sd3, tiny_sd3_parts


@pytest.mark.parametrize("t5", [True, False])
def test_the_conditioning_is_that_of_the_stock_pipeline(t5: bool) -> None:
    base = fresh_sd3(t5)
    texts = [*TEXTS, "", "a red hand in front of " * 60]
    conditioning = base.encode_text(texts)
    with torch.no_grad():
        tokens, null, pooled, null_pooled = base.stock_pipeline().encode_prompt(texts, None, None)
    assert conditioning.pooled is not None and conditioning.pooled.shape == (4, sum(POOLED))
    assert conditioning.tokens.shape == (4, TOKENS + T5_TOKENS, SD3_WIDTH) and base.text_dim == SD3_WIDTH
    assert torch.allclose(conditioning.tokens, tokens, atol=1e-5)
    assert torch.allclose(conditioning.pooled, pooled, atol=1e-5)
    empty = base.null_conditioning(conditioning[2:3])
    assert torch.allclose(empty.tokens, null[:1], atol=1e-5) and torch.allclose(empty.pooled, null_pooled[:1])
    assert conditioning.tokens[:, TOKENS:].any() == t5


def test_the_prediction_depends_on_each_input() -> None:
    base, latents = fresh_sd3(), torch.randn(2, *fresh_sd3().latent_shape)
    conditioning, timesteps = base.encode_text(TEXTS), torch.tensor([900.0, 300.0])
    other = conditioning[[1, 0]]
    with torch.no_grad():
        first = base.predict(latents, timesteps, conditioning)
        changed = [
            base.predict(latents, timesteps.flip(0), conditioning),
            base.predict(latents, timesteps, conditioning.with_tokens(other.tokens)),
            base.predict(latents, timesteps, dataclasses.replace(conditioning, pooled=other.pooled)),
        ]
        single = base.predict(latents, torch.tensor(900.0), conditioning)
    assert first.shape == latents.shape and torch.allclose(single[0], first[0], atol=1e-6)
    assert all((first - value).abs().max() > 1e-4 for value in changed)


@pytest.mark.parametrize("t5", [True, False])
def test_a_folder_is_loaded_as_it_was_saved(t5: bool, tmp_path: Path) -> None:
    folder = str(save_tiny_sd3(tmp_path, t5=t5))
    assert read_resolution(folder) == 2 * LATENT
    base = load_base_model(folder, denoiser_dtype=torch.bfloat16)
    assert isinstance(base, StableDiffusion3) and base.transformer.dtype == torch.bfloat16
    assert (base.text_encoder_3 is not None) == (base.tokenizer_3 is not None) == t5
    expected, conditioning = fresh_sd3(t5).encode_text(TEXTS), base.encode_text(TEXTS)
    assert torch.equal(conditioning.tokens, expected.tokens) and torch.equal(conditioning.pooled, expected.pooled)
    assert base.scheduler.config.shift == 3.0 and base.resolution == 2 * LATENT


def test_zeros_in_place_of_t5_do_not_shrink_the_first_fusion() -> None:
    generator = torch.Generator().manual_seed(0)
    shifts = []
    for t5 in (True, False):
        tokens = fresh_sd3(t5).encode_text([f"a {word} hand" for word in ("red", "blue", "a", "left", "hand")]).tokens
        start = LowRankFusion(tokens.shape[-1], ("four", "palm"), 0, 3)
        start.initialize(torch.randn(2, 63, generator=generator), tokens, generator)
        shifts.append(start.shift(start.features).norm())
    assert 0.1 < shifts[1] / shifts[0] < 10


def test_a_tuned_model_without_t5_is_saved_and_loaded(tmp_path: Path) -> None:
    base = load_base_model(str(save_tiny_sd3(tmp_path / "base", t5=False)))
    Hand1000Pipeline(base).save_pretrained(tmp_path / "model")
    pipeline = load_pipeline(tmp_path / "model")
    assert isinstance(pipeline.backbone, StableDiffusion3) and pipeline.text_encoder_3 is None
    assert len(pipeline("a red hand", num_inference_steps=1).images) == 1
    check_sampler_of_folder(tmp_path / "model", "ddim", 0.0)
    with pytest.raises(
        Hand1000Error, match="model: generation.eta above 0 needs a diffusion model, but this is Stable"
    ):
        check_sampler_of_folder(tmp_path / "model", None, 0.5)
    with pytest.raises(Hand1000Error, match="model: generation.sampler: unipc needs a diffusion model"):
        check_sampler_of_folder(tmp_path / "model", "unipc", None)


def test_parts_that_do_not_fit_are_refused_in_one_line(tmp_path: Path) -> None:
    parts = tiny_sd3_parts()

    def changed(part: str, **config) -> StableDiffusion3:
        other = copy.deepcopy(parts[part])
        other.register_to_config(**config)
        return StableDiffusion3(**parts | {part: other}, source="models/x")

    wrong = {
        "text_encoder_3 and tokenizer_3 belong together": StableDiffusion3(
            **parts | {"tokenizer_3": None}, source="models/x"
        ),
        "joint_attention_dim is 48, but the tokens of T5 are 32": changed("transformer", joint_attention_dim=48),
        "pooled_projection_dim is 9, but the pooled vectors of CLIP are 16": changed(
            "transformer", pooled_projection_dim=9
        ),
        "in_channels is 5, but the autoencoder's latents are 4": changed("transformer", in_channels=5),
        "sample_size is 7, not a multiple of 2 up to 24": changed("transformer", sample_size=7),
        "sample_size is 26, not a multiple of 2 up to 24": changed("transformer", sample_size=26),
        "shift_factor is None, not a number": changed("vae", shift_factor=None),
        "joint_attention_dim is 20, less than the 28 of both": dataclasses.replace(
            changed("transformer", joint_attention_dim=20), text_encoder_3=None, tokenizer_3=None
        ),
    }
    for message, base in wrong.items():
        with pytest.raises(Hand1000Error, match=f"^models/x: .*{message}"):
            base.check()
    StableDiffusion3(**parts).check(parts["transformer"])
    folder = save_tiny_sd3(tmp_path)
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"use_dynamic_shifting": True}))
    with pytest.raises(Hand1000Error, match="sets use_dynamic_shifting"):
        load_base_model(str(folder))
    (folder / "tokenizer_3" / "tokenizer.json").unlink()
    with pytest.raises(Hand1000Error, match="tokenizer of T5: no tokenizer.json or spiece.model; restore it"):
        StableDiffusion3.load_part("tokenizer_3", folder / "tokenizer_3", "models/x", torch.float32)
