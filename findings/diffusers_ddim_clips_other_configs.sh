#!/usr/bin/env bash
# diffusers 0.42.1: DDIMScheduler reads the config of an Euler, UniPC or PNDM scheduler with clip_sample True, and a pipeline
# changes the config of the scheduler that it is given.
#
# Those classes have no `clip_sample`, so DDIMScheduler.from_config takes its own default, True, which clips the predicted
# latents to -1..1; latents of Stable Diffusion are wider. StableDiffusionPipeline notices and sets clip_sample to False in the
# config of the very object: whoever shares it draws other images from then on. Expected output:
#   EulerDiscreteScheduler: clip_sample True
#   UniPCMultistepScheduler: clip_sample True
#   PNDMScheduler: clip_sample True
#   the same object in a StableDiffusionPipeline: clip_sample False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "diffusers==0.42.1" "torch==2.13.0" "numpy==1.26.4" "transformers==5.23.0"
cat > "$folder/clips.py" <<'PYTHON'
import diffusers
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
for name in ("EulerDiscreteScheduler", "UniPCMultistepScheduler", "PNDMScheduler"):
    scheduler = DDIMScheduler.from_config(getattr(diffusers, name)(**betas).config)
    print(f"{name}: clip_sample {scheduler.config.clip_sample}")
vae = AutoencoderKL(block_out_channels=(32,))
unet = UNet2DConditionModel(
    sample_size=8,
    block_out_channels=(32,),
    down_block_types=("CrossAttnDownBlock2D",),
    up_block_types=("CrossAttnUpBlock2D",),
    cross_attention_dim=8,
)
StableDiffusionPipeline(vae, None, None, unet, scheduler, None, None, requires_safety_checker=False)
print(f"the same object in a StableDiffusionPipeline: clip_sample {scheduler.config.clip_sample}")
PYTHON
output=$("$folder/venv/bin/python" "$folder/clips.py" 2>/dev/null)
echo "$output"
test "$output" = "EulerDiscreteScheduler: clip_sample True
UniPCMultistepScheduler: clip_sample True
PNDMScheduler: clip_sample True
the same object in a StableDiffusionPipeline: clip_sample False"
