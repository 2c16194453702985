#!/usr/bin/env bash
# diffusers 0.42.1: ZImagePipeline writes the chat template into the list of prompts that it is given, and guides with a scale that
# is one less than that of other pipelines.
#
# A second call with the same list wraps each prompt in the template once more and draws other images. The prediction is
# pos + guidance_scale (pos - neg), where other pipelines and the docstring have neg + guidance_scale (pos - neg). Source:
# pipelines/z_image/pipeline_z_image.py, _encode_prompt and __call__. Expected output:
#   ['<chat>a hand</chat>']
#   ['<chat><chat>a hand</chat></chat>']
#   with guidance_scale=3: 4 pos - 3 neg
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "diffusers==0.42.1" "torch==2.13.0" "transformers==5.23.0" "numpy==1.26.4"
cat > "$folder/prompts.py" <<'PYTHON'
from types import SimpleNamespace

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImagePipeline


class Tokenizer:
    def apply_chat_template(self, messages, **options):
        return f"<chat>{messages[0]['content']}</chat>"

    def __call__(self, texts, **options):
        ones = torch.ones(len(texts), 4, dtype=torch.long)
        return SimpleNamespace(input_ids=ones, attention_mask=ones)


class TextEncoder(torch.nn.Module):
    device, dtype = torch.device("cpu"), torch.float32

    def forward(self, input_ids, **options):
        return SimpleNamespace(hidden_states=[torch.zeros(*input_ids.shape, 8)] * 2)


class Transformer(torch.nn.Module):
    """Predicts 1 with a prompt and 100 without."""

    in_channels, device, dtype = 4, torch.device("cpu"), torch.float32

    def forward(self, frames, times, tokens, **options):
        return ([torch.full_like(frame, 1.0 if row == 0 else 100.0) for row, frame in enumerate(frames)],)


seen = []


class Scheduler(FlowMatchEulerDiscreteScheduler):
    def step(self, prediction, *arguments, **options):
        seen.append(-prediction.mean().item())
        return super().step(prediction, *arguments, **options)


pipeline = ZImagePipeline(Scheduler(), AutoencoderKL(), TextEncoder(), Tokenizer(), Transformer())
pipeline.set_progress_bar_config(disable=True)
prompts = ["a hand"]
for _ in range(2):
    pipeline(prompts, height=16, width=16, num_inference_steps=1, guidance_scale=3, output_type="latent")
    print(prompts)
neg = round((seen[0] - 4) / 100)
print(f"with guidance_scale=3: {round(seen[0] - 100 * neg)} pos - {-neg} neg")
PYTHON
cd "$folder"
output=$("$folder/venv/bin/python" prompts.py 2>"$folder/errors") || { cat "$folder/errors" >&2; exit 1; }
echo "$output"
test "$output" = "['<chat>a hand</chat>']
['<chat><chat>a hand</chat></chat>']
with guidance_scale=3: 4 pos - 3 neg"
