"""Conversion of the transformer of Stable Diffusion 3 and 3.5 to the keys of its original release."""

import re

import torch
from diffusers import SD3Transformer2DModel

_RULES = [
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


def transformer_keys(transformer: SD3Transformer2DModel) -> dict[str, torch.Tensor]:
    """Return the transformer's weights with the released keys, without a prefix.

    The release holds the projections of queries, keys and values one below the other. Where a modulation only shifts
    and scales, at the end of the image's and of the text's path, it has the shift before the scale.
    """
    weights = transformer.state_dict()
    swapped = (f"transformer_blocks.{transformer.config.num_layers - 1}.norm1_context.linear.", "norm_out.linear.")
    renamed = {}
    for name, value in weights.items():
        if re.search(r"\.(to|add)_[kv](_proj)?\.", name):
            continue
        if re.search(r"\.(to|add)_q(_proj)?\.", name):
            value = torch.cat([weights[re.sub(r"_q(?=\.|_proj)", f"_{part}", name)] for part in "qkv"])
        elif name.startswith(swapped):
            value = torch.cat(value.chunk(2)[::-1])
        for pattern, replacement in _RULES:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed
