"""Images of an exported folder by the installed diffusers, compared with ours: `python stock_images.py FOLDER NPY`."""

import sys

import diffusers
import numpy as np
import torch
import transformers

PROMPTS = ["a photo of a left hand, making four fingers up hand gesture", "a red hand"]


def main(folder: str, expected: str) -> None:
    """Print the versions, and the largest difference of the decoded images of `tests/export/test_export.py`."""
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    outputs: list[torch.Tensor] = []
    pipeline.vae.decoder.register_forward_hook(lambda _, __, output: outputs.append(output))
    size = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    generators = [torch.Generator().manual_seed(seed) for seed in (7, 8)]
    options = {"guidance_scale": 2.5, "eta": 0.6, "num_inference_steps": 4, "height": size, "width": size}
    pipeline(PROMPTS, generator=generators, **options)
    print(f"transformers {transformers.__version__}, diffusers {diffusers.__version__}")
    print(float(np.abs(torch.cat(outputs).numpy() - np.load(expected)).max()))


if __name__ == "__main__":
    main(*sys.argv[1:])
