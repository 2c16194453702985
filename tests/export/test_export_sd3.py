"""Exports of Stable Diffusion 3: the stock pipeline generates the same images as `Hand1000Pipeline`."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel, StableDiffusion3Pipeline
from diffusers.loaders.single_file_utils import (
    convert_ldm_vae_checkpoint,
    convert_sd3_transformer_checkpoint_to_diffusers,
    infer_diffusers_model_type,
)
from safetensors.torch import load_file

from benchmarks.backbone_models import SD35_MEDIUM
from hand1000.config.settings import LoraSettings, load_settings
from hand1000.core.errors import Hand1000Error
from hand1000.export.export import export_model
from hand1000.export.single_file import UNET, vae_weights
from hand1000.export.transformer_keys import transformer_keys
from hand1000.models.fusion import Fusion, GestureFusion
from hand1000.models.low_rank_fusion import LowRankFusion
from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline, load_pipeline
from hand1000.training.checkpoint import trainable_parameters
from hand1000.training.lora import add_adapter, merge_adapter, save_adapter
from tests.support.tiny_models import TEXTS
from tests.support.tiny_sd3 import SD3_WIDTH, fresh_sd3, tiny_sd3_parts

EQUAL = 1e-5
"""Largest difference of two equal images before they are rounded to bytes."""

HALF = 4e-3
"""Largest difference when a LoRA is rounded to float16."""

PROMPTS = [TEXTS[0], ""]
SAMPLER = {"mu": 0.4, "guidance_scale": 2.5, "num_inference_steps": 4}
TARGETS = load_settings("sd3").stage3.lora.targets


def perturbed(module: torch.nn.Module, generator: torch.Generator) -> torch.nn.Module:
    """The module with other weights, as after a training."""
    for parameter in module.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return module.requires_grad_(False)


def low_rank_fusion() -> Fusion:
    generator = torch.Generator().manual_seed(1)
    embeddings = fresh_sd3().encode_text([f"{TEXTS[0]} {word}" for word in ("red", "blue", "a", "wall")]).tokens
    fusion = LowRankFusion(SD3_WIDTH, ("four",), 0, 3)
    fusion.initialize(torch.randn(1, 63, generator=generator), embeddings, generator)
    return perturbed(fusion, generator)


def gesture_fusion() -> Fusion:
    generator = torch.Generator().manual_seed(1)
    fusion = GestureFusion(SD3_WIDTH, ("four",)).initialize(torch.randn(1, 63, generator=generator), generator)
    return perturbed(fusion, generator)


def save_model(folder: Path, fusion: Fusion, *, t5: bool = True, targets: list[str] | None = None) -> Path:
    """Save a tuned model, with a merged adapter of random weights if `targets` are given."""
    backbone = fresh_sd3(t5)
    if targets:
        transformer, generator = backbone.transformer, torch.Generator().manual_seed(3)
        add_adapter(transformer, LoraSettings(rank=2, alpha=3, targets=targets), seed=0)
        for parameter in trainable_parameters(transformer).values():
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
        save_adapter(transformer, "transformer", folder / "lora")
        merge_adapter(transformer)
    Hand1000Pipeline(backbone, fusion, **SAMPLER).save_pretrained(folder)
    return folder


def draw(pipeline, **settings) -> np.ndarray:
    """The images of both prompts as the decoder returns them, before they are rounded to bytes."""
    outputs: list[torch.Tensor] = []
    hook = pipeline.vae.decoder.register_forward_hook(lambda _, __, output: outputs.append(output))
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in (7, 8)]
    try:
        pipeline(list(PROMPTS), generator=generators, num_inference_steps=4, **settings)
    finally:
        hook.remove()
    return torch.cat(outputs).numpy()


def difference(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first - second).max())


@pytest.mark.parametrize(("build", "t5"), [(low_rank_fusion, True), (low_rank_fusion, False), (gesture_fusion, True)])
def test_stock_pipeline_generates_equal_images(build, t5: bool, tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", build(), t5=t5)
    pipeline = load_pipeline(model)
    expected, unguided = draw(pipeline), draw(pipeline, guidance_scale=1.0)
    assert difference(draw(pipeline, mu=1.0), expected) > 0.01  # else the fusion has no effect
    export_model(model, "diffusers", tmp_path / "folder")
    without = {} if t5 else {"text_encoder_3": None, "tokenizer_3": None}
    stock = StableDiffusion3Pipeline.from_pretrained(tmp_path / "folder", **without)
    assert difference(draw(stock, guidance_scale=2.5), expected) < EQUAL
    assert difference(draw(stock, guidance_scale=2.5, negative_prompt=["", ""]), expected) < EQUAL
    assert difference(draw(stock, guidance_scale=1.0), unguided) < EQUAL
    keys = load_file(tmp_path / "folder" / "text_encoder" / "model.safetensors").keys()
    assert keys == load_file(tmp_path / "model" / "text_encoder" / "model.safetensors").keys()
    card = (tmp_path / "folder" / "README.md").read_text()
    assert "eta=" not in card and "this folder, Euler," in card and "plain Stable Diffusion 3." in card
    assert ('from_pretrained("FOLDER", text_encoder_3=None, tokenizer_3=None)' in card) is not t5
    assert json.loads((tmp_path / "folder" / "model_index.json").read_text())["_class_name"] == type(stock).__name__


@pytest.mark.parametrize("form", ["lora", "lora-diffusers"])
@pytest.mark.parametrize("targets", [TARGETS, ["context_embedder", "to_q", "ff.net.0.proj", "norm1.linear"]])
def test_base_model_with_lora_generates_equal_images(form, targets: list[str], tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", low_rank_fusion(), targets=targets)
    expected = draw(load_pipeline(model))
    export_model(model, form, tmp_path / "four.safetensors")
    weights = load_file(tmp_path / "four.safetensors")
    parts = tiny_sd3_parts()
    base = StableDiffusion3Pipeline(**parts | {"transformer": copy.deepcopy(parts["transformer"])})
    assert difference(draw(base, guidance_scale=2.5), expected) > 0.01
    base.load_lora_weights(tmp_path / "four.safetensors")
    assert difference(draw(base, guidance_scale=2.5), expected) < EQUAL
    base.unload_lora_weights()
    base.load_lora_weights({name: value.half() for name, value in weights.items()})
    assert difference(draw(base, guidance_scale=2.5), expected) < HALF
    rank = 3 + 1 + (2 if "context_embedder" in targets else 0)
    assert weights["transformer.context_embedder.lora_A.weight"].shape == (rank, SD3_WIDTH)
    card = (tmp_path / "four.md").read_text()
    assert "FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0)" in card


def test_a_constant_term_in_a_lora_is_refused_in_one_line(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", gesture_fusion(), targets=["to_q"])
    with pytest.raises(Hand1000Error, match=r"constant term, which a LoRA for Stable Diffusion 3 cannot hold; .*rank$"):
        export_model(model, "lora", tmp_path / "four.safetensors")
    assert not (tmp_path / "four.safetensors").exists() and not (tmp_path / "four.md").exists()


def test_the_card_says_how_to_load_a_half_precision_folder(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", low_rank_fusion())
    expected = draw(load_pipeline(model))
    export_model(model, "diffusers", tmp_path / "folder", precision="float16")
    stock = StableDiffusion3Pipeline.from_pretrained(tmp_path / "folder", torch_dtype=torch.float16)
    assert difference(draw(stock, guidance_scale=2.5), expected) < 0.05
    card = (tmp_path / "folder" / "README.md").read_text()
    assert "import torch\n" in card and 'from_pretrained("FOLDER", torch_dtype=torch.float16)' in card


def test_single_file_generates_equal_images(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", gesture_fusion())
    expected = draw(load_pipeline(model))
    export_model(model, "single-file", tmp_path / "four.safetensors")
    export_model(model, "diffusers", tmp_path / "folder")
    encoders = {name: part for name, part in tiny_sd3_parts().items() if name.startswith(("text_", "tokenizer"))}
    single = StableDiffusion3Pipeline.from_single_file(
        str(tmp_path / "four.safetensors"), config=str(tmp_path / "folder"), local_files_only=True, **encoders
    )
    assert difference(draw(single, guidance_scale=2.5), expected) < EQUAL
    card = (tmp_path / "four.md").read_text()
    assert "text_encoder_3=text_encoder_3" in card and "The file has no text encoders." in card


def test_keys_and_shapes_are_those_of_stable_diffusion_35() -> None:
    """diffusers' own converters restore all keys and shapes of the real architecture, without weights."""
    with torch.device("meta"):
        transformer = SD3Transformer2DModel(**SD35_MEDIUM)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            latent_channels=16,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )
    keys = {UNET + name: value for name, value in transformer_keys(transformer).items()}
    assert infer_diffusers_model_type(keys) == "sd35_medium"
    for part, named, restore in (
        (transformer, keys, convert_sd3_transformer_checkpoint_to_diffusers),
        (vae, vae_weights(vae), lambda named: convert_ldm_vae_checkpoint(named, vae.config)),
    ):
        expected = {name: value.shape for name, value in part.state_dict().items()}
        assert {name: value.shape for name, value in restore(dict(named)).items()} == expected
