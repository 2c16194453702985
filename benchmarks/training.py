"""Stages II and III on a processor beside their peers, in fp32: `python -m benchmarks.bench --only training`.

The peers are those of `benchmarks.gpu`: the steps of diffusers' text-to-image scripts, which encode images and captions
in each step, written plainly. The authors' Stage II is written from their published loop: one image at a time, with an
optimizer of its own, and with gradients of the UNet's weights that nobody uses. The model has random weights in the
shape of the shipped small base model; `benchmarks.training_memory` has the rows at Stable Diffusion 1.5's shape.
"""

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.gpu_models import TINY, Shape
from benchmarks.operations import describe_operations
from benchmarks.rows import BenchOptions, Comparison, Row, measure_row

_SMALL_BASE = Path(__file__).parents[1] / "models/small-base"
_LOSS_TOLERANCE = 1e-4
_EMBEDDING_TOLERANCE = 1e-4


def small_shape() -> Shape:
    """Return the shape of the shipped small base model."""

    def read(part: str) -> dict[str, Any]:
        return json.loads((_SMALL_BASE / part / "config.json").read_text())

    unet, text, vae = read("unet"), read("text_encoder"), read("vae")
    latents = (unet["in_channels"], unet["sample_size"], unet["sample_size"])
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    return Shape(
        "small",
        latents,
        (text["max_position_embeddings"], text["hidden_size"]),
        {name: value for name, value in unet.items() if not name.startswith("_")},
        {name: value for name, value in vae.items() if not name.startswith("_")},
        {name: text[name] for name in (*names, "max_position_embeddings")},
        vae["sample_size"],
    )


def measure_rows(options: BenchOptions) -> Iterator[Row]:
    """Yield the rows of Stages II and III."""
    # The precision of the scripts' autocast is fp32 here, which PyTorch ignores with a warning.
    warnings.filterwarnings("ignore", message=".*CPU autocast.*")
    if options.short:
        yield _embedding_row(TINY, 4, 2, 2, None, options)
        yield _stage3_row("all weights", TINY, 2, {}, None, options)
        yield _stage3_row("LoRA", TINY, 2, _LORA, None, options)
        return
    small = small_shape()
    yield _embedding_row(small, 32, 32, 10, 8, options)
    yield _stage3_row("all weights", small, 16, {}, 2, options)
    yield _stage3_row("LoRA", small, 16, _LORA, 2, options)
    yield _stage3_row("all weights, EMA", small, 16, {"stage3.ema_decay": 0.999}, 2, options)


_LORA = {"stage3.training_mode": "lora"}


def make_case(shape: Shape, batch_size: int, changes: dict[str, Any]) -> Any:
    """Return one comparison in fp32, with the settings of the preset `default` and `changes` by dotted names."""
    from benchmarks.gpu_sides import Case
    from hand1000.training.context import FULL_PRECISION

    return Case(shape, batch_size, FULL_PRECISION, changes)


def _stage3_row(
    mode: str, shape: Shape, batch_size: int, changes: dict[str, Any], goal: float | None, options: BenchOptions
) -> Row:
    """Compare steps of Stage III with those of diffusers' script; equal are the losses of the first step."""
    from benchmarks.gpu_sides import stage3_sides

    sides = list(stage3_sides(make_case(shape, batch_size, changes), with_encoders=True))
    ours, step, script = sides
    return measure_row(
        Comparison(
            f"Stage III, {shape.name}, {mode}, batch {batch_size}: a step",
            "diffusers' text-to-image script",
            run_product=_run_once(ours.run, ours.first_loss),
            run_peer=_run_once(script.run, step.first_loss),
            is_equal=lambda left, right: abs(left - right) <= _LOSS_TOLERANCE * abs(right),
            goal=goal,
            note="" if options.short else describe_operations(lambda: ours.run(1)),
        ),
        options,
    )


def _run_once(run: Callable[[int], float], result: Any) -> Callable[[], Any]:
    def run_once() -> Any:
        run(1)
        return result

    return run_once


def _embedding_row(
    shape: Shape, images: int, batch_size: int, steps: int, goal: float | None, options: BenchOptions
) -> Row:
    """Compare Stage II's optimization of embeddings with the authors' loop; equal are the embeddings."""
    import torch

    from benchmarks.gpu_models import build_base, build_unet, random_conditioning
    from benchmarks.gpu_sides import random_latents
    from hand1000.core.devices import best_device
    from hand1000.models.conditioning import Conditioning
    from hand1000.training.batches import sample_noisy_batch
    from hand1000.training.stage2 import optimize_all_embeddings

    case = make_case(shape, batch_size, {"stage2.embedding_steps": steps})
    settings = case.settings.stage2
    base = build_base(shape, best_device(), torch.float32)
    unet = build_unet(shape, best_device(), torch.float32)
    unet.load_state_dict(base.unet.state_dict())
    unet.requires_grad_(True)
    latents, captions = random_latents(shape, images), random_conditioning(shape, images)
    texts = captions.tokens
    keys = [f"{number}.png" for number in range(images)]

    def run_authors_loop() -> torch.Tensor:
        optimized = []
        for index, key in enumerate(keys):
            embedding = texts[index : index + 1].clone().requires_grad_(True)
            optimizer = torch.optim.Adam([embedding], lr=settings.embedding_learning_rate)
            for step in range(steps):
                item = (latents[index : index + 1], Conditioning(embedding), base.schedule, [(key, step)])
                batch = sample_noisy_batch(*item, seed=0, stage="refine")
                noisy = base.scheduler.add_noise(batch.latents, batch.noise, batch.timesteps)
                loss = torch.nn.functional.mse_loss(unet(noisy, batch.timesteps, embedding).sample, batch.noise)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            optimized.append(embedding.detach())
        unet.zero_grad()
        return torch.cat(optimized)

    def run_product() -> torch.Tensor:
        return optimize_all_embeddings(base, latents, captions, keys, settings, case.context)[0]

    return measure_row(
        Comparison(
            f"Stage II, {shape.name}: {steps} steps for each of {images} images",
            "the authors' loop",
            run_product=run_product,
            run_peer=run_authors_loop,
            is_equal=lambda left, right: bool((left - right).abs().max() < _EMBEDDING_TOLERANCE),
            goal=goal,
            note="" if options.short else describe_operations(run_product),
        ),
        options,
    )
