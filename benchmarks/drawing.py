"""Drawing beside diffusers' stock pipeline and with fewer steps: `python -m benchmarks.bench --only drawing`.

All rows draw with the shipped small base model, so that the text, the noise and the sampler are those of a real model.
docs/ablations.md has the quality in fewer steps, which needs a trained model.
"""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.operations import describe_operations
from benchmarks.rows import BenchOptions, Comparison, Row, measure_row

_SMALL_BASE = Path(__file__).parents[1] / "models/small-base"
_STEPS = 10
_GUIDANCE: dict[str, Any] = {"guidance_scale": 3.0, "eta": 0.0}
_PROMPT = "a photo of a left hand with tan skin and a red sleeve in front of a {} wall"
_COLORS = ("blue", "green", "white", "gray")


def measure_rows(options: BenchOptions) -> Iterator[Row]:
    """Yield the rows of equal images and of equal quality."""
    import torch
    from diffusers import StableDiffusionPipeline

    from hand1000.models.base_model import load_base_model
    from hand1000.pipelines.pipeline_hand1000 import build_pipeline

    base = load_base_model(str(_SMALL_BASE))
    count, steps = (2, 2) if options.short else (32, _STEPS)
    settings: dict[str, Any] = {
        "mu": 1.0,
        "autoguidance_interval": (0.25, 0.8),
        "fuse_null_prompt": False,
        "num_inference_steps": steps,
    }
    pipeline = build_pipeline(base, **settings, **_GUIDANCE, autoguidance_scale=1.0)
    # As a user of diffusers loads it: a stock pipeline of our parts would have our blocks and memory format.
    stock = StableDiffusionPipeline.from_pretrained(_SMALL_BASE, torch_dtype=torch.float32, trust_remote_code=False)
    for drawing in (pipeline, stock):
        drawing.set_progress_bar_config(disable=True)
    prompts = [_PROMPT.format(_COLORS[index % len(_COLORS)]) for index in range(count)]
    ours = _drawer(pipeline, prompts)
    size = {"height": pipeline.resolution, "width": pipeline.resolution}
    theirs = _drawer(stock, prompts, **_GUIDANCE, **size, num_inference_steps=steps)

    def one_by_one() -> np.ndarray:
        return np.concatenate([theirs(slice(index, index + 1)) for index in range(count)])

    name = f"drawing, {count} images, guidance 3, {steps} steps"
    note = "" if options.short else describe_operations(ours)
    for peer, run_peer, goal in (
        ("stock pipeline, batched", theirs, 2.0),
        ("stock pipeline, one by one", one_by_one, 5.0),
    ):
        yield measure_row(
            Comparison(name, peer, ours, run_peer, is_equal=_are_equal, goal=goal, note=note),
            options,
        )
    # A second UNet beside the first, as a tuned model has; which weights it has does not matter for the time.
    tuned = build_pipeline(
        base, tuned=copy.deepcopy(base.denoiser), **settings | {"guidance_scale": 1.0}, eta=1.0, autoguidance_scale=4.0
    )
    tuned.set_progress_bar_config(disable=True)
    long, short = (4, 2) if options.short else (25, 8)
    yield measure_row(
        Comparison(
            f"drawing, {count} images, autoguidance 4: {short} steps of dpmpp_2m_sde",
            f"{long} steps of ddim, eta 1",
            _drawer(tuned, prompts, sampler="dpmpp_2m_sde", num_inference_steps=short),
            _drawer(tuned, prompts, num_inference_steps=long),
            goal=4.0,
            note="equal FID and KID-H: docs/ablations.md",
        ),
        options,
    )


def _drawer(pipeline: Any, prompts: list[str], **settings: Any) -> Callable[..., np.ndarray]:
    """Return what draws the prompts, or a part of them, each image with its own seed, as uint8."""
    import torch

    def draw(part: slice = slice(None)) -> np.ndarray:
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in range(len(prompts))[part]]
        images = pipeline(prompts[part], generator=generators, output_type="np", **settings).images
        return images if images.dtype == np.uint8 else np.round(images * 255).astype(np.uint8)

    return draw


def _are_equal(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether no pixel differs by more than one of 255 levels, by which rounding may differ."""
    return ours.shape == theirs.shape and int(np.abs(ours.astype(int) - theirs.astype(int)).max()) <= 1
