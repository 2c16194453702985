"""Exports of Stable Diffusion XL: the stock pipeline generates the same images as `Hand1000Pipeline`."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load_file

from hand1000.config.settings import LoraSettings
from hand1000.core.errors import Hand1000Error
from hand1000.export.export import export_model
from hand1000.models.fusion import GestureFusion
from hand1000.models.low_rank_fusion import LowRankFusion
from hand1000.models.stable_diffusion_xl import StableDiffusionXL
from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline, load_pipeline
from hand1000.training.checkpoint import trainable_parameters
from hand1000.training.lora import add_adapter, merge_adapter, save_adapter
from tests.support.tiny_models import TEXTS
from tests.support.tiny_sdxl import XL_WIDTH, fresh_sdxl_parts, tiny_sdxl_parts

EQUAL = 1e-5
"""Largest difference of two equal images before they are rounded to bytes."""

HALF = 4e-3
"""Largest difference when a LoRA is rounded to float16."""

PROMPTS = [TEXTS[0], ""]
SAMPLER = {"mu": 0.4, "guidance_scale": 2.5, "eta": 0.6, "num_inference_steps": 4}
ALL_LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "time_emb_proj"]
ALL_LAYERS += ["conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv"]


def perturbed(module: torch.nn.Module, generator: torch.Generator) -> torch.nn.Module:
    """The module with other weights, as after a training."""
    for parameter in module.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return module.requires_grad_(False)


def low_rank_fusion() -> LowRankFusion:
    generator = torch.Generator().manual_seed(1)
    base = StableDiffusionXL(**tiny_sdxl_parts())
    embeddings = base.encode_text([f"{TEXTS[0]} {word}" for word in ("red", "blue", "a", "wall")]).tokens
    fusion = LowRankFusion(XL_WIDTH, ("four",), 0, 3)
    fusion.initialize(torch.randn(1, 63, generator=generator), embeddings, generator)
    return perturbed(fusion, generator)


def gesture_fusion() -> GestureFusion:
    generator = torch.Generator().manual_seed(1)
    fusion = GestureFusion(XL_WIDTH, ("four",)).initialize(torch.randn(1, 63, generator=generator), generator)
    return perturbed(fusion, generator)


def save_model(folder: Path, fusion, *, zeros: bool = True, targets: list[str] | None = None) -> Path:
    """Save a tuned model, with a merged adapter of random weights if `targets` are given."""
    parts = fresh_sdxl_parts()
    if targets:
        unet, generator = parts["unet"], torch.Generator().manual_seed(3)
        add_adapter(unet, LoraSettings(rank=2, alpha=3, targets=targets), seed=0)
        for parameter in trainable_parameters(unet).values():
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
        save_adapter(unet, "unet", folder / "lora")
        merge_adapter(unet)
    backbone = StableDiffusionXL(**parts, force_zeros_for_empty_prompt=zeros)
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


def draw_stock(pipeline: StableDiffusionXLPipeline) -> np.ndarray:
    pipeline.scheduler = StableDiffusionXL(**tiny_sdxl_parts()).schedule.stock_scheduler()
    return draw(pipeline, guidance_scale=2.5, eta=0.6)


def difference(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first - second).max())


@pytest.mark.parametrize(
    ("build", "zeros"), [(low_rank_fusion, True), (low_rank_fusion, False), (gesture_fusion, True)]
)
def test_stock_pipeline_generates_equal_images_from_both_forms(build, zeros: bool, tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", build(), zeros=zeros)
    pipeline = load_pipeline(model)
    assert pipeline.backbone.force_zeros_for_empty_prompt is zeros
    expected = draw(pipeline)
    assert difference(draw(pipeline, mu=1.0), expected) > 0.01  # else the fusion has no effect
    export_model(model, "diffusers", tmp_path / "folder")
    folder = StableDiffusionXLPipeline.from_pretrained(tmp_path / "folder")
    assert difference(draw(folder, guidance_scale=2.5, eta=0.6), expected) < EQUAL
    export_model(model, "single-file", tmp_path / "four.safetensors")
    single = StableDiffusionXLPipeline.from_single_file(
        str(tmp_path / "four.safetensors"), config=str(tmp_path / "folder"), local_files_only=True
    )
    assert difference(draw_stock(single), expected) < EQUAL
    card = (tmp_path / "four.md").read_text()
    assert "StableDiffusionXLPipeline.from_single_file" in card and "plain Stable Diffusion XL" in card
    files = {"vocab.json", "merges.txt"}
    assert all(
        files <= {path.name for path in (tmp_path / "folder" / name).iterdir()} for name in ("tokenizer", "tokenizer_2")
    )


@pytest.mark.parametrize("targets", [["to_q", "to_k", "to_v", "to_out.0"], ALL_LAYERS])
def test_base_model_with_lora_generates_equal_images(targets: list[str], tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", low_rank_fusion(), targets=targets)
    expected = draw(load_pipeline(model))
    export_model(model, "lora", tmp_path / "four.safetensors")
    weights = load_file(tmp_path / "four.safetensors")
    base = StableDiffusionXLPipeline(**tiny_sdxl_parts() | {"unet": copy.deepcopy(tiny_sdxl_parts()["unet"])})
    assert difference(draw_stock(base), expected) > 0.01
    base.load_lora_weights(tmp_path / "four.safetensors")
    assert difference(draw_stock(base), expected) < EQUAL
    base.unload_lora_weights()
    base.load_lora_weights({name: value.half() for name, value in weights.items()})
    assert difference(draw_stock(base), expected) < HALF
    base.unload_lora_weights()
    export_model(model, "lora-diffusers", tmp_path / "diffusers.safetensors")
    base.load_lora_weights(tmp_path / "diffusers.safetensors")
    assert difference(draw_stock(base), expected) < EQUAL
    layer = "lora_unet_input_blocks_3_1_transformer_blocks_0_attn2_to_k"
    rank = 3 + 1 + (2 if "to_k" in targets else 0)
    assert weights[f"{layer}.lora_down.weight"].shape == (rank, XL_WIDTH)


def test_a_constant_term_fits_no_lora(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", gesture_fusion(), targets=["to_q"])
    with pytest.raises(
        Hand1000Error, match=r"constant term, which a LoRA for Stable Diffusion XL cannot hold; .*low_rank"
    ):
        export_model(model, "lora", tmp_path / "four.safetensors")
