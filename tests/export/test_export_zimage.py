"""Exports of Z-Image: the keys of its file, and what only its card says."""

from pathlib import Path

import pytest
import torch
from diffusers import ZImagePipeline, ZImageTransformer2DModel
from diffusers.loaders.single_file_utils import (
    convert_z_image_transformer_checkpoint_to_diffusers,
    infer_diffusers_model_type,
)
from safetensors.torch import load_file

from benchmarks.backbone_models import Z_IMAGE
from hand1000.export.export import export_model
from hand1000.export.single_file import UNET
from hand1000.export.transformer_keys import transformer_keys
from hand1000.pipelines.pipeline_hand1000 import load_pipeline
from tests.support.backbones import TINY_BACKBONES
from tests.support.exports import draw, gesture_fusion, largest_difference, low_rank_fusion, save_model
from tests.support.tiny_zimage import fresh_zimage

STOCK = TINY_BACKBONES["zimage"].stock_call


def test_the_card_says_how_to_guide_as_strongly(tmp_path: Path) -> None:
    base = fresh_zimage()
    model = save_model(tmp_path / "model", base, gesture_fusion(base))
    export_model(model, "diffusers", tmp_path / "folder")
    card = (tmp_path / "folder" / "README.md").read_text()
    assert "guidance_scale=1.5," in card and "this folder, Euler," in card and "loads with transformers 5." in card
    keys = load_file(tmp_path / "folder" / "text_encoder" / "model.safetensors").keys()
    assert keys == load_file(model / "text_encoder" / "model.safetensors").keys()
    export_model(model, "single-file", tmp_path / "four.safetensors")
    card = (tmp_path / "four.md").read_text()
    assert "tokenizer=tokenizer" in card and "vae=vae" in card and "no autoencoder. They are" in card
    assert "FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=6.0)" in card


@pytest.mark.filterwarnings("ignore:`torch_dtype` is deprecated")
def test_half_precision_keeps_the_images(tmp_path: Path) -> None:
    base = fresh_zimage()
    model = save_model(tmp_path / "model", base, low_rank_fusion(base))
    expected = draw(load_pipeline(model))
    export_model(model, "diffusers", tmp_path / "folder", precision="float16")
    stock = ZImagePipeline.from_pretrained(tmp_path / "folder", torch_dtype=torch.float16)
    assert largest_difference(draw(stock, **STOCK), expected) < 0.05


def test_keys_and_shapes_are_those_of_z_image() -> None:
    """diffusers' own converter restores all keys and shapes of the real architecture, without weights."""
    with torch.device("meta"):
        transformer = ZImageTransformer2DModel(**Z_IMAGE)
    keys = {UNET + name: value for name, value in transformer_keys(transformer).items()}
    assert infer_diffusers_model_type(keys) == "z-image-turbo" and len(keys) == 453
    expected = {name: value.shape for name, value in transformer.state_dict().items()}
    restored = convert_z_image_transformer_checkpoint_to_diffusers(dict(keys))
    assert {name: value.shape for name, value in restored.items()} == expected
