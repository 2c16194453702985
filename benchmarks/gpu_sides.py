"""Stage III and drawing of `benchmarks.gpu`, through this package's own code, each beside a published peer."""

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.gpu_models import TEXT, Shape, build_base, build_unet, extra_inputs, random_conditioning
from benchmarks.gpu_peers import Encoders, PeerTrainer, add_script_adapter
from hand1000.config.settings import ComputeSettings, Settings, load_settings
from hand1000.core.devices import best_device
from hand1000.pipelines.generation import generate
from hand1000.pipelines.pipeline_hand1000 import build_pipeline
from hand1000.training.batches import TrainingSet, sample_ahead
from hand1000.training.context import TrainContext
from hand1000.training.precision import DTYPES, weight_dtype
from hand1000.training.stage3 import Stage3Trainer

GESTURE = "four"
IMAGES = 64
"""Images of the random training set."""


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        shape: Backbone.
        batch_size: Images of a step.
        compute: Compute settings of our side; the peer has their precision.
        options: What differs from the preset `default`, by dotted names.
    """

    shape: Shape
    batch_size: int
    compute: ComputeSettings
    options: dict[str, Any]

    @property
    def settings(self) -> Settings:
        """Settings of a run that never saves, so that only computation is timed."""
        stage3 = {"batch_size": self.batch_size, "micro_batch_size": self.batch_size, "ema_decay": 0.0}
        stage3 |= {"checkpoint_every": 100_000}
        changes = {f"stage3.{name}": value for name, value in stage3.items()}
        changes |= {"stage2.fusion_batch_size": self.batch_size, "stage2.embedding_batch_size": self.batch_size}
        changes |= {"stage2.checkpoint_every": 100_000}
        changes |= {f"compute.{name}": value for name, value in self.compute.model_dump().items()}
        return load_settings("default").with_overrides(changes | self.options)

    @property
    def name(self) -> str:
        """Our side's name in the table."""
        return "hand1000, compiled" if self.compute.compile else "hand1000"

    def extra_inputs(self, count: int) -> dict[str, Any]:
        """Further inputs of the UNet, see `extra_inputs`."""
        return extra_inputs(self.shape, count, best_device())

    @property
    def context(self) -> TrainContext:
        """Seed and compute settings."""
        return TrainContext(seed=0, compute=self.compute)


@dataclass
class Side:
    """One side of a comparison.

    Attributes:
        name: Name in the table.
        run: Makes a number of steps; yields nothing and returns the seconds of a step.
        images: Images of a step.
        first_loss: Loss of the first step on the inputs that all sides share; None where it cannot be compared.
        state_bytes: Counted bytes of weights, gradients, moments and averages.
    """

    name: str
    run: Callable[[int], float]
    images: int
    first_loss: float | None = None
    state_bytes: float = 0.0


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def repeat(step: Callable[[int], object]) -> Callable[[int], float]:
    """Return the function that makes a number of steps, numbered on, and returns the seconds of one."""
    made = 0

    def run(count: int) -> float:
        nonlocal made
        synchronize()
        started = time.perf_counter()
        for _ in range(count):
            step(made)
            made += 1
        synchronize()
        return (time.perf_counter() - started) / count

    return run


def random_latents(shape: Shape, count: int = IMAGES) -> torch.Tensor:
    """Latents of a training set, (count, C, h, w) on the CPU."""
    return torch.randn(count, *shape.latents, generator=torch.Generator().manual_seed(1))


def stage3_sides(case: Case, *, with_encoders: bool) -> Iterator[Side]:
    """Fine-tuning of all weights or of an adapter beside diffusers' text-to-image trainers."""
    device, settings, dtype = best_device(), case.settings, DTYPES[case.compute.precision]
    lora = settings.stage3.training_mode == "lora"
    base = build_base(case.shape, device, weight_dtype(case.compute) if lora else torch.float32)
    state = base.unet.state_dict()
    peer_unet = build_unet(case.shape, device, dtype if lora else torch.float32)
    peer_unet.load_state_dict(state)
    captions = random_conditioning(case.shape, IMAGES)
    data = TrainingSet(random_latents(case.shape), captions, captions[:1], torch.zeros(IMAGES, dtype=torch.long))
    trainer = Stage3Trainer(base, data, settings.stage3, case.context)
    trained = sum(parameter.numel() for parameter in trainer.parameters.values())
    frozen = sum(parameter.numel() * parameter.element_size() for parameter in base.unet.parameters()) - 4 * trained
    ema = settings.stage3.ema_decay > 0

    batches = sample_ahead(trainer.sample_batch, range(settings.stage3.steps), in_thread=device.type == "cuda")

    def train_step(_: int = 0) -> float:
        trainer.train_step(next(batches))
        return float(trainer.history[-1]["loss"])

    shared = trainer.sample_batch(0).to(device)
    yield Side(case.name, repeat(train_step), case.batch_size, train_step(), frozen + trained * (20 if ema else 16))
    if lora:
        add_script_adapter(peer_unet, settings.stage3.lora.rank)
    else:
        peer_unet.requires_grad_(True)
    peer_unet.train()
    noise_scheduler, rate = base.scheduler, settings.stage3.learning_rate
    peer = PeerTrainer(peer_unet, noise_scheduler, rate, use_ema=ema, extra_inputs=case.extra_inputs, precision=dtype)
    size = frozen + trained * (8 if lora else 16) + (4 * trained if ema else 0)
    loss = peer.train_step(shared, draws_noise=False)
    yield Side(
        "diffusers' step, latents encoded before",
        repeat(lambda _: peer.train_step(shared)),
        case.batch_size,
        loss,
        size,
    )
    if with_encoders:
        whole = build_base(case.shape, device, dtype, unet_only=False)
        pixels = torch.rand(case.batch_size, 3, case.shape.pixels, case.shape.pixels, device=device) * 2 - 1
        token_ids = torch.ones(case.batch_size, case.shape.text[0], dtype=torch.long, device=device)
        encoders = Encoders(whole.vae, whole.text_encoder, pixels, token_ids)

        def script_step(_: int) -> float:
            peer.encoders = encoders
            loss = peer.train_step(shared)
            peer.encoders = None
            return loss

        yield Side("diffusers' script", repeat(script_step), case.batch_size)


def drawing_sides(case: Case, steps: int) -> Iterator[Side]:
    """Generation of images beside diffusers' pipeline in the same precision; a step is a whole batch of images."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    device, dtype, size = best_device(), DTYPES[case.compute.precision], case.batch_size
    base = build_base(case.shape, device, dtype, unet_only=False)
    peer_unet, scale = copy.deepcopy(base.unet), 3.0
    for part in (base.unet, base.vae):
        part.to(memory_format=torch.channels_last)  # As this package loads them.
    pipeline = build_pipeline(
        base,
        autoguidance_scale=1.0,
        mu=0.7,
        guidance_scale=scale,
        autoguidance_interval=[0.0, 1.0],
        fuse_null_prompt=True,
        eta=0.0,
        num_inference_steps=steps,
    )
    pipeline.set_progress_bar_config(disable=True)
    prompts, seeds = [TEXT] * size, list(range(size))

    def draw(_: int) -> list:
        return list(generate(pipeline, prompts, seeds, batch_size=size))

    yield Side(case.name, repeat(draw), size, _mean_level(draw(0)), count_bytes(base.unet))
    peer = StableDiffusionPipeline(
        base.vae,
        base.text_encoder,
        base.tokenizer,
        peer_unet,
        DDIMScheduler.from_config(base.scheduler.config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    peer.set_progress_bar_config(disable=True)

    def draw_peer(_: int) -> list:
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        latents = pipeline.prepare_latents(generators, dtype, device)
        images: list = peer(prompts, num_inference_steps=steps, guidance_scale=scale, latents=latents).images
        return images

    yield Side("diffusers' pipeline", repeat(draw_peer), size, _mean_level(draw_peer(0)))


def _mean_level(images: list) -> float:
    import numpy as np

    return float(np.mean([np.asarray(image, dtype=np.float64).mean() for image in images]))


def count_bytes(module: torch.nn.Module) -> float:
    """Bytes of all parameters."""
    return float(sum(parameter.numel() * parameter.element_size() for parameter in module.parameters()))
