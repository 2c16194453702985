"""Stable Diffusion XL as a single file: its keys at true size, and equal images from a tiny one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
    infer_diffusers_model_type,
)
from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from benchmarks.backbone_models import SDXL_UNET
from hand1000.export.lora_names import kohya_entries
from hand1000.export.single_file import (
    TEXT_XL,
    UNET,
    clip_weights,
    convert_to_ldm_keys,
    open_clip_weights,
    unet_weights,
    vae_weights,
)
from tests.support.tiny_sdxl import save_tiny_sdxl


def shapes_of(weights: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name.removeprefix("text_model."): value.shape for name, value in weights.items()}


def test_keys_and_shapes_are_those_of_stable_diffusion_xl() -> None:
    """diffusers' own converters restore all keys and shapes of the real architecture, without weights."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**SDXL_UNET)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
        )
        sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
        first = CLIPTextModel(CLIPTextConfig(**sizes))
        sizes = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
        second = CLIPTextModelWithProjection(CLIPTextConfig(hidden_act="gelu", projection_dim=1280, **sizes))
    weights: dict[str, torch.Tensor] = {}
    for part, named, restore in (
        (unet, unet_weights(unet), lambda named: convert_ldm_unet_checkpoint(named, unet.config)),
        (vae, vae_weights(vae), lambda named: convert_ldm_vae_checkpoint(named, vae.config)),
        (first, clip_weights(first, TEXT_XL[0]), convert_ldm_clip_checkpoint),
        (
            second,
            open_clip_weights(second, TEXT_XL[1]),
            lambda named: convert_open_clip_checkpoint(second, named, prefix=TEXT_XL[1] + "model."),
        ),
    ):
        weights |= named
        assert shapes_of(restore(named)) == shapes_of(part.state_dict())
    assert len(weights) == 2514 - 1  # as released, of which OpenCLIP's logit scale is no part of diffusers' models
    for name, shape in {
        UNET + "label_emb.0.0.weight": (1280, 2816),
        UNET + "label_emb.0.2.bias": (1280,),
        UNET + "input_blocks.4.1.proj_in.weight": (640, 640),
        UNET + "input_blocks.8.1.transformer_blocks.9.attn2.to_k.weight": (1280, 2048),
        UNET + "output_blocks.5.2.conv.weight": (640, 640, 3, 3),
        "conditioner.embedders.0.transformer.text_model.encoder.layers.11.mlp.fc1.weight": (3072, 768),
        "conditioner.embedders.1.model.transformer.resblocks.31.attn.in_proj_weight": (3840, 1280),
        "conditioner.embedders.1.model.text_projection": (1280, 1280),
    }.items():
        assert tuple(weights[name].shape) == shape, name
    assert infer_diffusers_model_type(weights) == "xl_base"


def test_lora_names_are_those_of_stable_diffusion_xl() -> None:
    """diffusers finds every layer of the real architecture by the name that kohya's trainer gives it."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**SDXL_UNET)
        layers = {
            name: (torch.empty(1, module.in_features), torch.empty(module.out_features, 1))
            for name, module in unet.named_modules()
            if isinstance(module, torch.nn.Linear) and ".attentions." in name
        }
    weights, _ = kohya_entries(unet, layers, alpha=1)
    assert len(weights) == 3 * len(layers) == 3 * 722
    for name in (
        "lora_unet_input_blocks_4_1_proj_in.lora_down.weight",
        "lora_unet_middle_block_1_transformer_blocks_9_attn1_to_out_0.lora_up.weight",
        "lora_unet_output_blocks_5_1_transformer_blocks_1_ff_net_0_proj.alpha",
    ):
        assert name in weights
    state, _ = StableDiffusionXLPipeline.lora_state_dict(weights, unet_config=unet.config)
    expected = {f"unet.{layer}.lora_{side}.weight" for layer in layers for side in "AB"}
    assert convert_unet_state_dict_to_peft(state).keys() == expected


def test_the_file_of_a_tiny_model_restores_every_weight(tmp_path: Path) -> None:
    folder = save_tiny_sdxl(tmp_path / "model")
    stock = StableDiffusionXLPipeline.from_pretrained(folder, add_watermarker=False)
    weights = convert_to_ldm_keys(stock)
    assert weights["conditioner.embedders.1.model.logit_scale"].item() == pytest.approx(4.6052, abs=1e-4)
    save_file(weights, tmp_path / "model.safetensors")
    single = StableDiffusionXLPipeline.from_single_file(
        str(tmp_path / "model.safetensors"), config=str(folder), local_files_only=True, add_watermarker=False
    )
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        expected, restored = getattr(stock, part).state_dict(), getattr(single, part).state_dict()
        assert expected.keys() == restored.keys()
        assert all(np.array_equal(value.numpy(), restored[name].numpy()) for name, value in expected.items()), part
