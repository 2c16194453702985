"""Conversion of Stable Diffusion 1.x, 2.x, XL and 3 and Z-Image to the keys of their release.

diffusers numbers blocks, and layers within a block; LDM numbers all layers of one half of the UNet consecutively.
"""

import math
import re
from collections.abc import Callable

import torch
from diffusers import (
    AutoencoderKL,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    ZImagePipeline,
)
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from hand1000.export.renaming import Rules, rename
from hand1000.export.transformer_keys import transformer_keys

Weights = dict[str, torch.Tensor]

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."
TEXT_XL = ("conditioner.embedders.0.", "conditioner.embedders.1.")
"""The prefixes of Stable Diffusion XL's two text encoders, OpenAI's CLIP and OpenCLIP."""

LOGIT_SCALE = math.log(100)
"""Scale with which OpenCLIP compares images and texts; its release holds it, and nothing that draws images reads it."""


def convert_to_ldm_keys(
    pipeline: StableDiffusionPipeline | StableDiffusionXLPipeline | StableDiffusion3Pipeline | ZImagePipeline,
) -> Weights:
    """Return all weights of the pipeline as LDM's state dictionary, contiguous and on the CPU.

    That of Stable Diffusion 3 has no text encoders, and that of Z-Image the transformer alone, as the released ones.
    diffusers 0.42 could not load an autoencoder beside it: its converter of the transformer takes all weights.
    """
    if isinstance(pipeline, StableDiffusion3Pipeline | ZImagePipeline):
        weights = {UNET + name: value for name, value in transformer_keys(pipeline.transformer).items()}
        if isinstance(pipeline, StableDiffusion3Pipeline):
            weights |= vae_weights(pipeline.vae)
        return {name: value.cpu().contiguous() for name, value in weights.items()}
    weights = unet_weights(pipeline.unet) | vae_weights(pipeline.vae)
    if isinstance(pipeline, StableDiffusionXLPipeline):
        first, second = TEXT_XL
        weights |= clip_weights(pipeline.text_encoder, first) | open_clip_weights(pipeline.text_encoder_2, second)
        weights[f"{second}model.logit_scale"] = torch.tensor(LOGIT_SCALE, dtype=pipeline.text_encoder_2.dtype)
    else:
        weights |= text_encoder_weights(pipeline.text_encoder)
    return {name: value.cpu().contiguous() for name, value in weights.items()}


def unet_weights(unet: UNet2DConditionModel) -> Weights:
    """Return the UNet's weights with LDM's keys."""
    to_ldm = unet_renamer(unet)
    return {UNET + to_ldm(name): value for name, value in unet.state_dict().items()}


def unet_renamer(unet: UNet2DConditionModel) -> Callable[[str], str]:
    """Return the function from a weight's name in `unet` to its LDM key without the prefix."""
    layers = unet.config.layers_per_block
    attention_blocks = {str(number) for number, block in enumerate(unet.up_blocks) if hasattr(block, "attentions")}

    def down(match: re.Match[str]) -> str:
        block, kind, layer = match.groups()
        index = 1 + int(block) * (layers + 1)
        if kind == "downsamplers":
            return f"input_blocks.{index + layers}.0.op."
        return f"input_blocks.{index + int(layer)}.{int(kind == 'attentions')}."

    def up(match: re.Match[str]) -> str:
        block, kind, layer = match.groups()
        index = int(block) * (layers + 1)
        if kind == "upsamplers":
            return f"output_blocks.{index + layers}.{1 + (block in attention_blocks)}.conv."
        return f"output_blocks.{index + int(layer)}.{int(kind == 'attentions')}."

    block_rules: Rules = [
        (r"^time_embedding\.linear_1\.", "time_embed.0."),
        (r"^time_embedding\.linear_2\.", "time_embed.2."),
        # Of Stable Diffusion XL, for the pooled vector and the time ids.
        (r"^add_embedding\.linear_1\.", "label_emb.0.0."),
        (r"^add_embedding\.linear_2\.", "label_emb.0.2."),
        (r"^conv_in\.", "input_blocks.0.0."),
        (r"^conv_norm_out\.", "out.0."),
        (r"^conv_out\.", "out.2."),
        (r"^down_blocks\.(\d+)\.(resnets|attentions|downsamplers)\.(\d+)\.(?:conv\.(?=\w+$))?", down),
        (r"^mid_block\.resnets\.0\.", "middle_block.0."),
        (r"^mid_block\.attentions\.0\.", "middle_block.1."),
        (r"^mid_block\.resnets\.1\.", "middle_block.2."),
        (r"^up_blocks\.(\d+)\.(resnets|attentions|upsamplers)\.(\d+)\.(?:conv\.(?=\w+$))?", up),
    ]
    resnet_rules: Rules = [
        (r"\.norm1\.(?=\w+$)", ".in_layers.0."),
        (r"\.conv1\.", ".in_layers.2."),
        (r"\.norm2\.(?=\w+$)", ".out_layers.0."),
        (r"\.conv2\.", ".out_layers.3."),
        (r"\.time_emb_proj\.", ".emb_layers.1."),
        (r"\.conv_shortcut\.", ".skip_connection."),
    ]
    return lambda name: rename(name, [*(resnet_rules if ".resnets." in name else []), *block_rules])


def vae_weights(vae: AutoencoderKL) -> Weights:
    """Return the autoencoder's weights with LDM's keys; LDM's attention consists of 1 x 1 convolutions."""
    last = len(vae.config.up_block_types) - 1
    rules: Rules = [
        (r"\.conv_norm_out\.", ".norm_out."),
        (r"\.conv_shortcut\.", ".nin_shortcut."),
        (r"\.mid_block\.resnets\.0\.", ".mid.block_1."),
        (r"\.mid_block\.resnets\.1\.", ".mid.block_2."),
        (r"\.mid_block\.attentions\.0\.", ".mid.attn_1."),
        (r"\.attn_1\.group_norm\.", ".attn_1.norm."),
        (r"\.attn_1\.to_([qkv])\.", r".attn_1.\1."),
        (r"\.attn_1\.to_out\.0\.", ".attn_1.proj_out."),
        (r"\.down_blocks\.(\d+)\.resnets\.", r".down.\1.block."),
        (r"\.down_blocks\.(\d+)\.downsamplers\.0\.", r".down.\1.downsample."),
        # LDM numbers the decoder's blocks from the image inwards.
        (r"\.up_blocks\.(\d+)\.", lambda match: f".up.{last - int(match[1])}."),
        (r"\.up\.(\d+)\.resnets\.", r".up.\1.block."),
        (r"\.up\.(\d+)\.upsamplers\.0\.", r".up.\1.upsample."),
    ]
    weights = {rename(name, rules): value for name, value in vae.state_dict().items()}
    return {
        VAE + name: value[:, :, None, None] if ".attn_1." in name and value.ndim == 2 else value
        for name, value in weights.items()
    }


def text_encoder_weights(text_encoder: CLIPTextModel) -> Weights:
    """Return the text encoder of Stable Diffusion 1.x, which is OpenAI's CLIP, or of 2.x, OpenCLIP, with LDM's keys."""
    # Only OpenAI's CLIP has the approximated activation.
    is_clip = text_encoder.config.hidden_act == "quick_gelu"
    return (clip_weights if is_clip else open_clip_weights)(text_encoder, TEXT)


def clip_weights(text_encoder: CLIPTextModel, prefix: str) -> Weights:
    """Return the weights with the keys of OpenAI's CLIP, which are those of transformers 4."""
    weights = text_encoder.state_dict()
    return {f"{prefix}transformer.text_model.{name.removeprefix('text_model.')}": weights[name] for name in weights}


def open_clip_weights(text_encoder: CLIPTextModel | CLIPTextModelWithProjection, prefix: str) -> Weights:
    """Return the weights with OpenCLIP's keys.

    OpenCLIP holds the projections of queries, keys and values one below the other, and the projection of the pooled
    vector transposed. Its last layer, which Stable Diffusion 2.x does not use and diffusers therefore does not have, is
    left out.
    """
    weights = {name.removeprefix("text_model."): value for name, value in text_encoder.state_dict().items()}
    rules: Rules = [
        (r"^embeddings\.token_embedding\.", "token_embedding."),
        (r"^embeddings\.position_embedding\.weight$", "positional_embedding"),
        (r"^final_layer_norm\.", "ln_final."),
        (r"^text_projection\.weight$", "text_projection"),
        (r"^encoder\.layers\.(\d+)\.", r"transformer.resblocks.\1."),
        (r"\.layer_norm(\d)\.", r".ln_\1."),
        (r"\.self_attn\.out_proj\.", ".attn.out_proj."),
        (r"\.self_attn\.q_proj\.", ".attn.in_proj_"),
        (r"\.mlp\.fc1\.", ".mlp.c_fc."),
        (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    ]
    renamed = {}
    for name, value in weights.items():
        if ".q_proj." in name:
            value = torch.cat([weights[name.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"])
        elif name == "text_projection.weight":
            value = value.T
        if ".k_proj." not in name and ".v_proj." not in name:
            renamed[f"{prefix}model.{rename(name, rules)}"] = value
    return renamed
