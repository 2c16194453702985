"""Damaged folders of models: every loader refuses them in one line that names the fault."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hand1000.core.errors import Hand1000Error
from hand1000.models.base_model import load_base_model, read_resolution
from hand1000.pipelines.controlnet import load_controlnet
from hand1000.pipelines.pipeline_hand1000 import load_pipeline
from tests.support.mutated_models import CONFIG_MUTATIONS, WEIGHT_MUTATIONS, edit_config
from tests.support.tiny_models import fresh_base, save_gesture_model, save_tiny_base

PARTS = ("vae", "text_encoder", "unet", "fusion", "guidance_unet")


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with all parts, which is a base model as well."""
    return save_gesture_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def model(intact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(intact, tmp_path / "model"))


def refusals(model: Path) -> list[str]:
    """What the loaders that read the damaged part say."""
    messages = []
    for load in (load_pipeline, lambda folder: load_base_model(str(folder))):
        try:
            load(model)
        except Hand1000Error as error:
            messages.append(str(error))
    return messages


@pytest.mark.parametrize(
    ("part", "fault"),
    # Two libraries load the parts; what both do is checked for all parts.
    [
        *((part, fault) for part in ("unet", "text_encoder") for fault in WEIGHT_MUTATIONS),
        *(
            (part, fault)
            for part in ("vae", "fusion", "guidance_unet")
            for fault in ("missing", "another shape", "NaN")
        ),
    ],
)
def test_damaged_weights_are_refused_by_name(model: Path, part: str, fault: str) -> None:
    damage, pattern = WEIGHT_MUTATIONS[fault]
    damage(model / part)
    with pytest.raises(Hand1000Error, match=pattern) as caught:
        load_pipeline(model)
    assert part in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", CONFIG_MUTATIONS)
def test_damaged_configurations_are_refused_by_name(model: Path, fault: str) -> None:
    part = PARTS[list(CONFIG_MUTATIONS).index(fault) % len(PARTS)]
    CONFIG_MUTATIONS[fault](model / part)
    with pytest.raises(Hand1000Error) as caught:
        load_pipeline(model)
    assert part in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("unet", {"sample_size": "eight"}),
        ("unet", {"sample_size": -1}),
        ("unet", {"cross_attention_dim": 8}),
        ("unet", {"block_out_channels": [0, 0]}),
        ("unet", {"layers_per_block": 10**7}),
        ("unet", {"norm_num_groups": 0}),
        ("unet", {"down_block_types": ["NoSuchBlock"] * 2}),
        ("unet", {"addition_embed_type": "text_time"}),
        ("unet", {"mid_block_scale_factor": [1]}),
        ("unet", {"act_fn": 1}),
        ("unet", {"norm_eps": "small"}),
        ("vae", {"scaling_factor": float("nan")}),
        ("vae", {"block_out_channels": "many"}),
        ("vae", {"latent_channels": 5}),
        ("vae", {"scaling_factor": "large"}),
        ("text_encoder", {"hidden_size": 17}),
        ("text_encoder", {"hidden_size": "wide"}),
        ("text_encoder", {"num_hidden_layers": 2}),
        ("text_encoder", {"num_hidden_layers": 10**6}),
        ("text_encoder", {"vocab_size": 3}),
        ("text_encoder", {"vocab_size": 10**12}),
        ("text_encoder", {"max_position_embeddings": None}),
        ("text_encoder", {"hidden_act": "no such function"}),
        ("fusion", {"gestures": ["no such gesture"]}),
        ("fusion", {"gestures": []}),
        ("fusion", {"gestures": ["four", "ok"]}),
        ("fusion", {"text_dim": 8}),
        ("fusion", {"pose_dim": 2}),
        ("fusion", {"_class_name": "Other"}),
        ("scheduler", {"beta_start": None}),
        ("scheduler", {"beta_schedule": "no such schedule"}),
        ("scheduler", {"trained_betas": [0.1, 0.2]}),
        ("scheduler", {"trained_betas": ["small"] * 1000}),
        ("scheduler", {"num_train_timesteps": -5}),
        ("scheduler", {"num_train_timesteps": 10**9}),
        ("scheduler", {"prediction_type": "sample"}),
    ],
    ids=lambda value: (
        value if isinstance(value, str) else "-".join(f"{name}-{item}" for name, item in value.items())[:60]
    ),
)
def test_wrong_values_of_a_configuration_are_refused(model: Path, part: str, values: dict[str, Any]) -> None:
    edit_config(model / part, **values)
    messages = refusals(model)
    assert len(messages) == (1 if part == "fusion" else 2)
    assert not any("\n" in message for message in messages)


def test_resolution_of_damaged_configurations_is_refused(model: Path) -> None:
    for values in ({"sample_size": None}, {"sample_size": [8, 8]}, {"sample_size": 10**6}):
        edit_config(model / "unet", **values)
        with pytest.raises(Hand1000Error, match="sample_size"):
            read_resolution(str(model))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("no tokenizer", lambda model: shutil.rmtree(model / "tokenizer")),
        ("no scheduler", lambda model: shutil.rmtree(model / "scheduler")),
        ("not JSON", lambda model: (model / "tokenizer" / "tokenizer.json").write_text("{")),
        ("no tokens", lambda model: (model / "tokenizer" / "tokenizer.json").write_text("{}")),
        ("a list", lambda model: (model / "tokenizer" / "tokenizer.json").write_text("[]")),
        ("a length that is none", lambda model: _set_length(model, [])),
        ("a length of nothing", lambda model: _set_length(model, 0)),
        ("cut short", lambda model: _cut_tokenizer(model)),
        ("more tokens than the text encoder reads", lambda model: _add_token(model)),
    ],
)
def test_a_tokenizer_or_scheduler_that_does_not_fit_is_refused(
    model: Path, name: str, damage: Callable[[Path], Any]
) -> None:
    damage(model)
    messages = refusals(model)
    assert len(messages) == 2 and not any("\n" in message for message in messages), messages


def _set_length(model: Path, length: object) -> None:
    path = model / "tokenizer" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": length}))


def _cut_tokenizer(model: Path) -> None:
    path = model / "tokenizer" / "tokenizer.json"
    path.write_text(path.read_text()[:2000])


def _add_token(model: Path) -> None:
    path = model / "tokenizer" / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"]["another</w>"] = 10**6
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "index",
    [
        {"unet": ["somewhere", "Unknown"]},
        {"vae": [None, None]},
        {"fusion": "GestureFusion"},
        {"tokenizer": None},
        {"mu": "much"},
        {"guidance_scale": -1},
        {"autoguidance_interval": [1]},
        {"fusion": ["os", "system"]},
    ],
    ids=str,
)
def test_a_wrong_index_of_a_model_is_refused(model: Path, index: dict[str, Any]) -> None:
    path = model / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | index))
    with pytest.raises(Hand1000Error, match="model"):
        load_pipeline(model)


def test_values_are_checked_once_while_the_file_stays(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_pipeline(model)
    passes: list[int] = []
    original = torch.aminmax
    monkeypatch.setattr(torch, "aminmax", lambda *args: passes.append(1) or original(*args))
    load_pipeline(model)
    assert not passes
    WEIGHT_MUTATIONS["NaN"][0](model / "vae")
    with pytest.raises(Hand1000Error, match=r"the tensor \S+ has values that are NaN"):
        load_pipeline(model)
    assert passes


def test_an_intact_model_loads_without_a_word(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "hand1000"):
        assert load_pipeline(model).fusion.gestures == ("four",)
    assert "REPORT" not in caplog.text and refusals(model) == []


def test_a_damaged_controlnet_is_refused(tmp_path: Path) -> None:
    from diffusers import ControlNetModel

    torch.manual_seed(0)
    controlnet = ControlNetModel.from_unet(fresh_base().unet, conditioning_embedding_out_channels=(4, 4))
    for fault, (damage, pattern) in WEIGHT_MUTATIONS.items():
        folder = tmp_path / fault
        controlnet.save_pretrained(folder)
        damage(folder)
        with pytest.raises(Hand1000Error, match=pattern):
            load_controlnet(str(folder))


def test_an_older_buffer_in_a_text_encoder_does_not_matter(tmp_path: Path) -> None:
    from tests.support.mutated_models import rewrite

    folder = save_tiny_base(tmp_path / "base")
    rewrite(
        folder / "text_encoder",
        lambda tensors: tensors.update({"text_model.embeddings.position_ids": torch.arange(16)[None]}),
    )
    assert load_base_model(str(folder)).text_encoder is not None
