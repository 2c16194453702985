"""Models of the size of Stable Diffusion 1.5 with random weights; `make test-slow` runs these tests."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

from hand1000.config.settings import load_settings
from hand1000.export.export import export_model
from hand1000.models.fusion import GestureFusion
from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline
from hand1000.training.checkpoint import trainable_parameters
from hand1000.training.lora import add_adapter, merge_adapter, save_adapter
from tests.support.sd15_models import random_sd15

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

PROMPT = "a red hand"


def test_every_stage_fits_into_16_gb_at_256_px(tmp_path: Path) -> None:
    call = [sys.executable, "-m", "tests.support.sd15_run", str(tmp_path)]
    done = subprocess.run(call, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.splitlines()[-1]) < 16e9


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tuned model with an adapter, `tuned`, beside its base model, `base`, for images of 64 px."""
    folder = tmp_path_factory.mktemp("sd15")
    base, generator = random_sd15(sample_size=8), torch.Generator().manual_seed(1)
    parts = {"vae": base.vae, "text_encoder": base.text_encoder, "tokenizer": base.tokenizer, "unet": base.unet}
    parts["scheduler"] = base.scheduler
    none = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    StableDiffusionPipeline(**parts, **none).save_pretrained(folder / "base")
    fusion = GestureFusion(768, ("four",)).initialize(torch.randn(1, 63, generator=generator), generator)
    with torch.no_grad():
        fusion.linear.weight.add_(0.01 * torch.randn(fusion.linear.weight.shape, generator=generator))
        fusion.linear.bias.add_(0.3 * torch.randn(768, generator=generator))
    add_adapter(base.unet, load_settings("default").stage3.lora, seed=0)
    for parameter in trainable_parameters(base.unet).values():
        parameter.data = 0.02 * torch.randn(parameter.shape, generator=generator)
    save_adapter(base.unet, "unet", folder / "tuned" / "lora")
    merge_adapter(base.unet)
    options = {"mu": 0.7, "guidance_scale": 2.0, "eta": 0.0, "num_inference_steps": 2}
    Hand1000Pipeline(base, fusion, **options).save_pretrained(folder / "tuned")
    return folder


def decoded(pipeline, **settings) -> np.ndarray:
    """Return the image before it is rounded to bytes."""
    images: list[torch.Tensor] = []
    hook = pipeline.vae.decoder.register_forward_hook(lambda _, __, output: images.append(output))
    pipeline.set_progress_bar_config(disable=True)
    pipeline(PROMPT, generator=torch.Generator().manual_seed(1), guidance_scale=2.0, num_inference_steps=2, **settings)
    hook.remove()
    return images[0].numpy()


@pytest.mark.parametrize("form", ["diffusers", "single-file", "lora"])
def test_exported_model_generates_the_same_image(model: Path, form, tmp_path) -> None:
    tuned = Hand1000Pipeline.from_pretrained(model / "tuned", use_safetensors=True)
    expected = decoded(tuned)
    assert np.abs(decoded(tuned, mu=1.0) - expected).max() > 1e-2  # Otherwise the fusion has no effect.
    del tuned
    out = tmp_path / ("model" if form == "diffusers" else "model.safetensors")
    export_model(model / "tuned", form, out)
    load = StableDiffusionPipeline.from_pretrained
    if form == "diffusers":
        stock = load(out, safety_checker=None)
    elif form == "lora":
        stock = load(model / "base", safety_checker=None)
        stock.load_lora_weights(out)
    else:
        stock = StableDiffusionPipeline.from_single_file(
            str(out), config=str(model / "base"), safety_checker=None, local_files_only=True
        )
        stock.scheduler = DDIMScheduler.from_pretrained(model / "base", subfolder="scheduler")
    assert np.abs(decoded(stock, height=64, width=64) - expected).max() < 1e-4
