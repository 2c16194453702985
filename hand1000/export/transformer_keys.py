"""Conversion of the transformers of Stable Diffusion 3 and Z-Image to the keys of their original releases."""

import re
from collections.abc import Mapping

import torch
from diffusers import SD3Transformer2DModel, ZImageTransformer2DModel

from hand1000.export.renaming import Rules, rename

Factors = tuple[torch.Tensor, torch.Tensor]
"""down (R, in) and up (out, R) of a layer, to whose weight up @ down is added; of a convolution with its kernel."""

_SD3_RULES: Rules = [
    (r"^pos_embed\.pos_embed$", "pos_embed"),
    (r"^pos_embed\.proj\.", "x_embedder.proj."),
    (r"^time_text_embed\.timestep_embedder\.linear_1\.", "t_embedder.mlp.0."),
    (r"^time_text_embed\.timestep_embedder\.linear_2\.", "t_embedder.mlp.2."),
    (r"^time_text_embed\.text_embedder\.linear_1\.", "y_embedder.mlp.0."),
    (r"^time_text_embed\.text_embedder\.linear_2\.", "y_embedder.mlp.2."),
    (r"^proj_out\.", "final_layer.linear."),
    (r"^norm_out\.linear\.", "final_layer.adaLN_modulation.1."),
    (r"^transformer_blocks\.", "joint_blocks."),
    (r"\.attn\.add_q_proj\.", ".context_block.attn.qkv."),
    (r"\.attn\.norm_added_([qk])\.", r".context_block.attn.ln_\1."),
    (r"\.attn\.to_add_out\.", ".context_block.attn.proj."),
    (r"\.(attn2?)\.to_q\.", r".x_block.\1.qkv."),
    (r"\.(attn2?)\.norm_([qk])\.", r".x_block.\1.ln_\2."),
    (r"\.(attn2?)\.to_out\.0\.", r".x_block.\1.proj."),
    (r"\.norm1_context\.linear\.", ".context_block.adaLN_modulation.1."),
    (r"\.norm1\.linear\.", ".x_block.adaLN_modulation.1."),
    (r"\.ff_context\.net\.0\.proj\.", ".context_block.mlp.fc1."),
    (r"\.ff_context\.net\.2\.", ".context_block.mlp.fc2."),
    (r"\.ff\.net\.0\.proj\.", ".x_block.mlp.fc1."),
    (r"\.ff\.net\.2\.", ".x_block.mlp.fc2."),
]

_Z_IMAGE_RULES: Rules = [
    (r"^all_(x_embedder|final_layer)\.2-1\.", r"\1."),
    (r"\.attention\.to_q\.", ".attention.qkv."),
    (r"\.attention\.to_out\.0\.", ".attention.out."),
    (r"\.attention\.norm_([qk])\.", r".attention.\1_norm."),
]

_RULES: Mapping[type, Rules] = {SD3Transformer2DModel: _SD3_RULES, ZImageTransformer2DModel: _Z_IMAGE_RULES}
"""The rules of each class of transformers."""

_PROJECTION = re.compile(r"\.(to|add)_([qkv])(?=_proj\b|\.|$)")
"""Projections of queries, keys and values, which the release holds one below the other."""


def transformer_keys(transformer: SD3Transformer2DModel | ZImageTransformer2DModel) -> dict[str, torch.Tensor]:
    """Return the transformer's weights with the released keys, without a prefix.

    The release holds the projections of queries, keys and values one below the other. Where a modulation of
    Stable Diffusion 3 only shifts and scales, at the end of the image's and of the text's path, it has the shift before
    the scale.
    """
    weights, rules = transformer.state_dict(), _RULES[type(transformer)]
    renamed = {}
    for name, value in weights.items():
        match = _PROJECTION.search(name)
        if match and match[2] != "q":
            continue
        if match:
            value = torch.cat([weights[_name_part(name, part)] for part in "qkv"])
        elif _has_shift_last(transformer, name):
            value = torch.cat(value.chunk(2)[::-1])
        renamed[rename(name, rules)] = value
    return renamed


def released_layers(transformer: SD3Transformer2DModel, layers: Mapping[str, Factors]) -> dict[str, Factors]:
    """Return the change of each layer, by its released name, of changes of the transformer's own layers.

    Those of queries, keys and values are one whose `up` has blocks on its diagonal; a missing one is zero.
    """
    renamed: dict[str, Factors] = {}
    for name, (down, up) in layers.items():
        key = f"{_name_part(name, 'q')}.weight"
        if _PROJECTION.search(name):
            parts = [layers.get(_name_part(name, part)) for part in "qkv"]
            down = torch.cat([part[0] for part in parts if part])
            up = torch.block_diag(*(part[1] if part else up.new_zeros(len(up), 0) for part in parts))
        elif _has_shift_last(transformer, key):
            up = torch.cat(up.chunk(2)[::-1])
        renamed[rename(key, _RULES[type(transformer)]).removesuffix(".weight")] = down, up
    return renamed


def _name_part(name: str, part: str) -> str:
    """Return the name of a layer's queries, keys or values, of that of any of them."""
    return _PROJECTION.sub(rf".\1_{part}", name)


def _has_shift_last(transformer: SD3Transformer2DModel | ZImageTransformer2DModel, name: str) -> bool:
    """Whether a modulation's last half is the shift."""
    if not isinstance(transformer, SD3Transformer2DModel):
        return False
    last = transformer.config.num_layers - 1
    return name.startswith((f"transformer_blocks.{last}.norm1_context.linear.", "norm_out.linear."))
