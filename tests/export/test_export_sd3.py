"""Exports of Stable Diffusion 3: names at true size, kohya's LoRA, and what only its cards say."""

from pathlib import Path

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
from hand1000.export.export import export_model
from hand1000.export.single_file import UNET, vae_weights
from hand1000.export.transformer_keys import transformer_keys
from hand1000.pipelines.pipeline_hand1000 import load_pipeline
from tests.support.backbones import TINY_BACKBONES
from tests.support.exports import EQUAL, draw, largest_difference, low_rank_fusion, save_model
from tests.support.tiny_sd3 import fresh_sd3


@pytest.mark.parametrize(
    "targets", [TINY_BACKBONES["sd3"].settings.stage3.lora.targets, ["to_q", "to_k", "norm1.linear", "norm_out.linear"]]
)
def test_kohyas_lora_changes_the_released_weights_alike(targets: list[str], tmp_path: Path) -> None:
    """ComfyUI adds up @ down * alpha / rank to the weight whose released name, with underscores, the LoRA has."""
    tuned = fresh_sd3()
    model = save_model(tmp_path / "model", tuned, low_rank_fusion(tuned), targets)
    expected = draw(load_pipeline(model))
    export_model(model, "lora", tmp_path / "four.safetensors")
    lora = load_file(tmp_path / "four.safetensors")
    base = fresh_sd3()
    released = {name: value.clone() for name, value in transformer_keys(base.transformer).items()}
    layers = {name.partition(".")[0] for name in lora}
    known = {"lora_unet_" + name.removesuffix(".weight").replace(".", "_"): name for name in released}
    for layer in layers:
        down, up, alpha = (lora[f"{layer}.{part}"] for part in ("lora_down.weight", "lora_up.weight", "alpha"))
        released[known[layer]] += up @ down * (alpha / len(down))
    base.transformer.load_state_dict(
        convert_sd3_transformer_checkpoint_to_diffusers({UNET + name: value for name, value in released.items()})
    )
    assert "lora_unet_context_embedder" in layers and "lora_unet_joint_blocks_0_x_block_attn_qkv" in layers
    assert largest_difference(draw(base.stock_pipeline(), guidance_scale=2.5), expected) < EQUAL
    assert "diffusers does not" in (tmp_path / "four.md").read_text()


@pytest.mark.parametrize("t5", [True, False])
def test_the_card_of_a_folder_names_sampler_and_missing_parts(t5: bool, tmp_path: Path) -> None:
    base = fresh_sd3(t5)
    model = save_model(tmp_path / "model", base, low_rank_fusion(base))
    export_model(model, "diffusers", tmp_path / "folder")
    card = (tmp_path / "folder" / "README.md").read_text()
    assert "eta=" not in card and "this folder, Euler," in card
    assert ('from_pretrained("FOLDER", text_encoder_3=None, tokenizer_3=None)' in card) is not t5
    keys = load_file(tmp_path / "folder" / "text_encoder" / "model.safetensors").keys()
    assert keys == load_file(tmp_path / "model" / "text_encoder" / "model.safetensors").keys()


def test_the_cards_of_files_say_what_to_load_beside_them(tmp_path: Path) -> None:
    base = fresh_sd3()
    model = save_model(tmp_path / "model", base, low_rank_fusion(base), ["to_q"])
    export_model(model, "single-file", tmp_path / "single.safetensors")
    card = (tmp_path / "single.md").read_text()
    assert "text_encoder_3=text_encoder_3" in card and "The file has no text encoders." in card
    export_model(model, "lora-diffusers", tmp_path / "lora.safetensors")
    card = (tmp_path / "lora.md").read_text()
    assert "FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0)" in card


def test_the_card_says_how_to_load_a_half_precision_folder(tmp_path: Path) -> None:
    base = fresh_sd3()
    model = save_model(tmp_path / "model", base, low_rank_fusion(base))
    expected = draw(load_pipeline(model))
    export_model(model, "diffusers", tmp_path / "folder", precision="float16")
    stock = StableDiffusion3Pipeline.from_pretrained(tmp_path / "folder", torch_dtype=torch.float16)
    assert largest_difference(draw(stock, guidance_scale=2.5), expected) < 0.05
    card = (tmp_path / "folder" / "README.md").read_text()
    assert "import torch\n" in card and 'from_pretrained("FOLDER", torch_dtype=torch.float16)' in card


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
