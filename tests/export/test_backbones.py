"""Exports of every other backbone: the stock pipeline generates the same images as `Hand1000Pipeline`."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file

from hand1000.core.errors import Hand1000Error
from hand1000.export.export import export_model
from hand1000.models.backbone import Backbone
from hand1000.models.fusion import Fusion
from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline, load_pipeline
from tests.support.backbones import TINY_BACKBONES, TinyBackbone
from tests.support.exports import EQUAL, HALF, draw, gesture_fusion, largest_difference, low_rank_fusion, save_model
from tests.support.tiny_models import TEXTS
from tests.support.tiny_sd3 import fresh_sd3
from tests.support.tiny_sdxl import fresh_sdxl

SDXL, SD3 = TINY_BACKBONES["sdxl"], TINY_BACKBONES["sd3"]


def encodes_empty_negatives() -> Backbone:
    return dataclasses.replace(fresh_sdxl(), force_zeros_for_empty_prompt=False)


def without_t5() -> Backbone:
    return fresh_sd3(t5=False)


CASES = [(tiny, tiny.fresh, build) for tiny in TINY_BACKBONES.values() for build in (low_rank_fusion, gesture_fusion)]
CASES += [(SDXL, encodes_empty_negatives, low_rank_fusion), (SD3, without_t5, low_rank_fusion)]


def stock_class(backbone: Backbone) -> Any:
    return getattr(diffusers, backbone.pipeline_classes[0])


def draw_stock(tiny: TinyBackbone, pipeline: Any, **settings: Any) -> Any:
    pipeline.scheduler = tiny.fresh().schedule.stock_scheduler()
    return draw(pipeline, **tiny.stock_call | settings)


def missing_parts(backbone: Backbone) -> dict[str, None]:
    return {name: None for name in backbone.optional_parts if getattr(backbone, name) is None}


@pytest.mark.parametrize(
    ("tiny", "fresh", "build"), CASES, ids=[f"{fresh.__name__}-{build.__name__}" for _, fresh, build in CASES]
)
def test_stock_pipeline_generates_equal_images_from_both_forms(
    tiny: TinyBackbone, fresh: Callable[[], Backbone], build: Callable[[Backbone], Fusion], tmp_path: Path
) -> None:
    base = fresh()
    model = save_model(tmp_path / "model", base, build(base), **tiny.sampler)
    pipeline = load_pipeline(model)
    assert pipeline.backbone.options == base.options
    expected, unguided = draw(pipeline), draw(pipeline, guidance_scale=1.0)
    assert largest_difference(draw(pipeline, mu=1.0), expected) > 0.01  # else the fusion has no effect
    export_model(model, "diffusers", tmp_path / "folder")
    stock = stock_class(base).from_pretrained(tmp_path / "folder", **missing_parts(base))
    assert largest_difference(draw(stock, **tiny.stock_call), expected) < EQUAL
    without = dict(tiny.stock_call) | {"guidance_scale": tiny.stock_call["guidance_scale"] - 1.5}
    assert largest_difference(draw(stock, **without), unguided) < EQUAL
    for negative in ("", TEXTS[1]):
        guided_by = replace_null_prompt(pipeline, negative)
        assert largest_difference(draw(stock, **tiny.stock_call, negative_prompt=[negative] * 2), guided_by) < EQUAL
    export_model(model, "single-file", tmp_path / "four.safetensors")
    outside = ("text_encoder", "tokenizer", *(["vae"] if tiny.name == "zimage" else []))
    encoders = {name: part for name, part in base.parts.items() if name.startswith(outside)}
    single = stock_class(base).from_single_file(
        str(tmp_path / "four.safetensors"),
        config=str(tmp_path / "folder"),
        local_files_only=True,
        **{} if "unet" in base.part_names() else encoders,
    )
    assert largest_difference(draw_stock(tiny, single), expected) < EQUAL
    card = (tmp_path / "four.md").read_text()
    assert f"{stock_class(base).__name__}.from_single_file" in card and f"plain {base.title}" in card
    assert json.loads((tmp_path / "folder" / "model_index.json").read_text())["_class_name"] == type(stock).__name__
    tokenizers = [tmp_path / "folder" / name for name in base.part_names() if re.fullmatch("tokenizer(_2)?", name)]
    assert all((folder / name).is_file() for folder in tokenizers for name in ("vocab.json", "merges.txt"))


def replace_null_prompt(pipeline: Hand1000Pipeline, negative: str) -> Any:
    """The images whose guidance leads away from another prompt, which only stock pipelines have an argument for."""
    gesture_ids = torch.zeros(1, dtype=torch.long)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "encode_null_prompt", lambda mu: pipeline.encode_prompt([negative], mu, gesture_ids))
        return draw(pipeline)


LORA_CASES = [
    (tiny, form, targets)
    for tiny in TINY_BACKBONES.values()
    for form in tiny.lora_forms
    for targets in (tiny.settings.stage3.lora.targets, tiny.targets)
]


@pytest.mark.parametrize(
    ("tiny", "form", "targets"),
    LORA_CASES,
    ids=[f"{tiny.name}-{form}-{len(targets)}" for tiny, form, targets in LORA_CASES],
)
def test_base_model_with_lora_generates_equal_images(tiny: TinyBackbone, form: Any, targets, tmp_path: Path) -> None:
    tuned = tiny.fresh()
    model = save_model(tmp_path / "model", tuned, low_rank_fusion(tuned), targets, **tiny.sampler)
    expected = draw(load_pipeline(model))
    export_model(model, form, tmp_path / "four.safetensors")
    base = tiny.fresh().stock_pipeline()
    assert largest_difference(draw_stock(tiny, base), expected) > 0.01
    base.load_lora_weights(tmp_path / "four.safetensors")
    assert largest_difference(draw_stock(tiny, base), expected) < EQUAL
    base.unload_lora_weights()
    export_model(model, form, tmp_path / "half.safetensors", precision="float16")
    base.load_lora_weights(tmp_path / "half.safetensors")
    assert largest_difference(draw_stock(tiny, base), expected) < HALF
    # The rank is that of fusion and adapter together.
    reads_text = any(layer.endswith(target) for layer in tuned.text_layers for target in targets)
    downs = [value for name, value in load_file(tmp_path / "four.safetensors").items() if value.ndim == 2]
    assert any(tuple(value.shape) == (3 + 1 + (2 if reads_text else 0), tuned.text_dim) for value in downs)


@pytest.mark.parametrize("tiny", TINY_BACKBONES.values(), ids=TINY_BACKBONES)
def test_a_constant_term_in_a_lora_is_refused_in_one_line(tiny: TinyBackbone, tmp_path: Path) -> None:
    base = tiny.fresh()
    model = save_model(tmp_path / "model", base, gesture_fusion(base), ["to_q"])
    message = rf"constant term, which a LoRA for {base.title} cannot hold; .*low_rank$"
    with pytest.raises(Hand1000Error, match=message):
        export_model(model, "lora", tmp_path / "four.safetensors")
    assert not (tmp_path / "four.safetensors").exists() and not (tmp_path / "four.md").exists()
