#!/usr/bin/env bash
# diffusers 0.42.1: a StableDiffusion3Pipeline without T5 saves a folder that the same class refuses to load.
#
# The documentation recommends `text_encoder_3=None, tokenizer_3=None` to save memory. `save_pretrained` writes both as
# [null, null], but `from_pretrained` counts them as missing, since `_optional_components` names only the image encoder and the
# feature extractor. A reader has to know to give both as None again. Source: pipelines/pipeline_utils.py, from_pretrained.
# Expected output:
#   saved: text_encoder_3 [None, None], tokenizer_3 [None, None]
#   loaded: ValueError
#   loaded with text_encoder_3=None, tokenizer_3=None: StableDiffusion3Pipeline
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "diffusers==0.42.1" "torch==2.13.0" "numpy==1.26.4" "transformers==5.23.0"
cat > "$folder/save.py" <<'PYTHON'
import json
from pathlib import Path

from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

text = CLIPTextConfig(
    vocab_size=1000,
    hidden_size=32,
    intermediate_size=32,
    projection_dim=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    max_position_embeddings=77,
    bos_token_id=0,
    eos_token_id=1,
)
pipeline = StableDiffusion3Pipeline(
    SD3Transformer2DModel(
        sample_size=8,
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=64,
        pooled_projection_dim=64,
    ),
    FlowMatchEulerDiscreteScheduler(),
    AutoencoderKL(block_out_channels=(32,), latent_channels=4),
    CLIPTextModelWithProjection(text),
    CLIPTokenizer(),
    CLIPTextModelWithProjection(text),
    CLIPTokenizer(),
    text_encoder_3=None,
    tokenizer_3=None,
)
pipeline.save_pretrained("model")
index = json.loads(Path("model/model_index.json").read_text())
print("saved: " + ", ".join(f"{name} {index[name]}" for name in ("text_encoder_3", "tokenizer_3")))
try:
    StableDiffusion3Pipeline.from_pretrained("model")
except ValueError as error:
    print(f"loaded: {type(error).__name__}")
loaded = StableDiffusion3Pipeline.from_pretrained("model", text_encoder_3=None, tokenizer_3=None)
print(f"loaded with text_encoder_3=None, tokenizer_3=None: {type(loaded).__name__}")
PYTHON
cd "$folder"
output=$("$folder/venv/bin/python" save.py 2>"$folder/errors") || { cat "$folder/errors" >&2; exit 1; }
echo "$output"
test "$output" = "saved: text_encoder_3 [None, None], tokenizer_3 [None, None]
loaded: ValueError
loaded with text_encoder_3=None, tokenizer_3=None: StableDiffusion3Pipeline"
