"""Which backbone a folder is, and what each can do."""

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hand1000.config.comparison import HandRefinerSettings
from hand1000.config.settings import load_settings
from hand1000.core.errors import Hand1000Error
from hand1000.models.backbone import FEATURES, UNET_FEATURES, Backbone, required_features
from hand1000.models.base_model import BACKBONES, check_features, load_backbone_class, load_base_model, read_resolution
from hand1000.models.conditioning import Conditioning
from hand1000.models.stable_diffusion import StableDiffusion
from hand1000.paper.interleaved import train_interleaved
from hand1000.training.context import TrainContext
from hand1000.training.stage2 import train_fusion
from tests.support.backbones import TINY_BACKBONES
from tests.support.tiny_models import LATENT, TEXTS, TOKENS, WIDTH, encoded_dataset, save_tiny_base, tiny_base

PAPER = load_settings("paper")


def test_conditioning_carries_both_parts_together() -> None:
    first = Conditioning(torch.arange(12.0).reshape(2, 2, 3), torch.arange(4.0).reshape(2, 2))
    second = first.map(lambda tensor: tensor + 100)
    joined = Conditioning.cat([first, second])
    assert len(joined) == 4 and joined.pooled is not None and joined.pooled.shape == (4, 2)
    row = joined[[3]]
    assert torch.equal(row.tokens, second.tokens[1:]) and torch.equal(row.pooled, second.pooled[1:])
    mixed = Conditioning.where(torch.tensor([True, False]), first, second)
    assert torch.equal(mixed.tokens[0], first.tokens[0]) and torch.equal(mixed.pooled[1], second.pooled[1])
    assert first.with_tokens(second.tokens).pooled is first.pooled
    wide = first[:1].expand(3)
    assert wide.tokens.shape == (3, 2, 3) and torch.equal(wide.pooled[2], first.pooled[0])
    plain = Conditioning(first.tokens)
    assert all(value.pooled is None for value in (plain[:1], plain.to(torch.float64), plain[:1].expand(3)))
    assert Conditioning.cat([plain, plain]).pooled is None
    assert Conditioning.where(torch.tensor([True, False]), plain, plain).pooled is None


def test_lengths_follow_their_texts_and_keep_their_type() -> None:
    first = Conditioning(torch.zeros(2, 5, 3), lengths=torch.tensor([4, 300]))
    second = first.map(lambda tensor: tensor + 1)
    mixed = Conditioning.where(torch.tensor([True, False]), first, second)
    joined = Conditioning.cat([first, second])[[3, 0]]
    assert mixed.lengths is not None and mixed.lengths.tolist() == [4, 301]
    assert joined.lengths is not None and joined.lengths.tolist() == [301, 4]
    half, copied = first.to(torch.bfloat16), first.to("cpu", copy=True)
    assert half.tokens.dtype == torch.bfloat16 and torch.equal(half.lengths, first.lengths)
    assert copied.lengths is not first.lengths and [len(tensor) for tensor in first.tensors()] == [2, 2]
    assert first.with_tokens(second.tokens).lengths is first.lengths


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_declares_what_it_is(name: str) -> None:
    backbone = load_backbone_class(name)
    assert issubclass(backbone, Backbone) and backbone.name == name
    assert [field.name for field in dataclasses.fields(backbone)] == [
        *backbone.part_names(),
        *backbone.option_names,
        "source",
    ]
    assert backbone.denoiser_name in backbone.part_names() and set(backbone.optional_parts) < set(backbone.part_names())


@pytest.mark.parametrize("class_name", ["FluxPipeline", "", None, 5, "Hand1000Pipeline"])
def test_an_unknown_pipeline_is_refused_in_one_line(tmp_path: Path, class_name: object) -> None:
    folder = save_tiny_base(tmp_path)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": class_name, "backbone": "flux"}))
    for load in (load_base_model, read_resolution, lambda source: check_features(source, ["ControlNet"])):
        with pytest.raises(Hand1000Error) as error:
            load(str(folder))
        text = str(error.value)
        named = "backbone, 'flux'" if class_name == "Hand1000Pipeline" else f"pipeline, {class_name!r}"
        assert text.startswith(f"{folder}: its {named}, is not supported") and "\n" not in text
        assert "Stable Diffusion 1.x (StableDiffusionPipeline)" in text


def test_an_inpainting_model_is_a_base_model_too(tmp_path: Path) -> None:
    folder = save_tiny_base(tmp_path)
    index = json.loads((folder / "model_index.json").read_text())
    index["_class_name"] = "StableDiffusionInpaintPipeline"
    (folder / "model_index.json").write_text(json.dumps(index))
    assert isinstance(load_base_model(str(folder)), StableDiffusion)


def test_the_settings_say_which_features_they_need(tmp_path: Path) -> None:
    assert required_features(PAPER) == ["stage2.fusion: flat", "stage2.paper_loop"]
    assert required_features(load_settings("default")) == []
    assert required_features(load_settings("demo")) == ["generation.sampler: dpmpp_2m_sde"]
    check_features(str(save_tiny_base(tmp_path)), FEATURES)
    check_features(str(tmp_path / "none"), [])
    with pytest.raises(Hand1000Error, match="no diffusers folder: model_index.json is missing"):
        check_features(str(tmp_path / "unet"), ["ControlNet"])


@pytest.mark.parametrize("preset", TINY_BACKBONES)
def test_a_preset_needs_no_more_than_its_backbone_has(preset: str) -> None:
    assert load_backbone_class(preset).supports.issuperset(required_features(load_settings(preset)))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("generation.eta", 0.5, "generation.eta above 0 needs a diffusion model, but this is {}; choose 0"),
        (
            "generation.sampler",
            "unipc",
            "generation.sampler: unipc needs a diffusion model, but this is {}; choose ddim",
        ),
        ("generation.sampler", "dpmpp_2m", "generation.sampler: dpmpp_2m needs a diffusion model, but this is {}; cho"),
        (
            "compute.attention",
            "eager",
            "compute.attention: eager needs a model with a UNet, but this is {}; choose sdpa",
        ),
    ],
)
def test_what_a_flow_model_lacks_is_refused_by_its_index(tmp_path: Path, name: str, value, message: str) -> None:
    features = required_features(load_settings("sd3").with_overrides({name: value}))
    check_features(str(save_index("sdxl", tmp_path / "xl")), features)
    source = str(save_index("sd3", tmp_path / "sd3"))
    with pytest.raises(Hand1000Error) as error:
        check_features(source, features)
    assert str(error.value).startswith(f"{source}: {message.format('Stable Diffusion 3')}")
    assert "\n" not in str(error.value)


def save_index(name: str, folder: Path) -> Path:
    """Save the only file of a model that a check of features reads."""
    folder.mkdir()
    index = {"_class_name": load_backbone_class(name).pipeline_classes[0]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize("build", [tiny.fresh for tiny in TINY_BACKBONES.values()])
def test_features_of_sd_1_are_refused_for_other_models(build: Callable[[], Backbone]) -> None:
    from hand1000.baselines.hand_refiner import hand_refiner_generator
    from hand1000.config.controlnet import ControlSettings
    from hand1000.hands.depth_pairs import DepthPairs
    from hand1000.training.train_controlnet import train_controlnet

    base: Any = dataclasses.replace(build(), source="/models/other")  # type: ignore[type-var]
    context, latents, text = TrainContext(seed=0), torch.randn(1, 4, LATENT, LATENT), torch.randn(1, TOKENS, WIDTH)
    data, feature = encoded_dataset(latents, text), {"four": torch.zeros(63)}
    pairs = DepthPairs.__new__(DepthPairs)
    refused: dict[str, Callable[[], object]] = {
        "stage2.fusion: flat": lambda: train_fusion(base, data, feature, PAPER.stage2, context),
        "stage2.paper_loop": lambda: train_interleaved(base, latents, text, PAPER.stage2, PAPER.stage3, context),
        "ControlNet": lambda: train_controlnet(pairs, base, ControlSettings.model_construct(), context),
        "HandRefiner": lambda: hand_refiner_generator(
            lambda _: [Image.new("RGB", (8, 8))], base, None, HandRefinerSettings.model_construct()
        ),
    }
    assert set(refused) == FEATURES - UNET_FEATURES
    for feature_name, call in refused.items():
        with pytest.raises(Hand1000Error) as error:
            call()
        text_of_error = str(error.value)
        assert text_of_error.startswith(
            f"/models/other: {feature_name} needs a model of Stable Diffusion 1.x, but this is {base.title}; "
        )
        assert "\n" not in text_of_error


def test_images_and_latents_go_through_the_shift() -> None:
    """A flow model's autoencoder has a shift_factor, Stable Diffusion's has none."""
    base = tiny_base()
    images = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), dtype=np.uint8)
    plain = base.encode_images(images)
    vae = copy.deepcopy(base.vae)
    vae.register_to_config(shift_factor=0.5)
    shifted = dataclasses.replace(base, vae=vae)
    assert torch.allclose(shifted.encode_images(images), plain - 0.5 * vae.config.scaling_factor, atol=1e-5)
    with torch.no_grad():
        decoded = shifted.decode(shifted.encode_images(images)), base.decode(plain)
    assert np.abs(decoded[0].astype(int) - decoded[1]).max() <= 1


def test_a_backbone_keeps_the_other_parts() -> None:
    base = tiny_base()
    other = base.with_denoiser(None)
    assert other.unet is None and other.vae is base.vae and base.denoiser is base.unet
    assert base.encode_text(TEXTS).tokens.shape == (2, TOKENS, WIDTH) and base.text_dim == WIDTH
    assert base.latent_shape == (4, LATENT, LATENT) and base.resolution == 4 * LATENT
