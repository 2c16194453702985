"""Stage II of `benchmarks.gpu`: the training of the fusion and the optimization of embeddings, beside their peers."""

import time
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.gpu_models import build_base, build_unet, random_conditioning
from benchmarks.gpu_peers import EmbeddingTrainer
from benchmarks.gpu_sides import (
    GESTURE,
    IMAGES,
    Case,
    Side,
    count_bytes,
    random_latents,
    repeat,
)
from hand1000.core.devices import best_device
from hand1000.core.rng import shuffled_batch
from hand1000.models.fusion import GestureFusion, double_fusion
from hand1000.training.batches import sample_noisy_batch
from hand1000.training.context import TrainContext
from hand1000.training.encoded_dataset import EncodedDataset
from hand1000.training.precision import DTYPES, weight_dtype
from hand1000.training.stage2 import optimize_all_embeddings, train_fusion


def fusion_sides(case: Case) -> Iterator[Side]:
    """Training of the fusion through the frozen UNet, beside the same step written as diffusers' scripts write it."""
    device, settings = best_device(), case.settings
    base = build_base(case.shape, device, weight_dtype(case.compute))
    peer_unet = _copy_unet(base, case)
    latents, captions = random_latents(case.shape), random_conditioning(case.shape, IMAGES)
    texts, pooled = captions.tokens, captions.pooled
    names = [f"{number}.png" for number in range(IMAGES)]
    empty_pooled = None if pooled is None else pooled[0]
    records = (names, names, names, names, [GESTURE] * IMAGES)
    data = EncodedDataset(latents, texts, texts[0], *records, pooled, empty_pooled)
    features = {GESTURE: torch.randn(63, generator=torch.Generator().manual_seed(3))}
    losses: list[float] = []

    def run(count: int) -> float:
        seconds: list[float] = []

        def note(done: int, total: int, metrics: Any = None) -> None:
            seconds.append(time.perf_counter())

        stage2 = settings.stage2.model_copy(update={"fusion_steps": count + 1})
        context = TrainContext(seed=0, compute=case.compute, on_progress=note)
        _, history = train_fusion(base, data, features, stage2, context)
        losses.append(history[0]["loss"])
        return (seconds[-1] - seconds[0]) / count

    run(1)
    yield Side(case.name, run, case.batch_size, losses[0], count_bytes(base.unet))
    fusion = GestureFusion(case.shape.text[1], (GESTURE,))
    generator = torch.Generator().manual_seed(4)
    fusion.initialize(torch.stack(list(features.values())), generator).to(device)
    indices = shuffled_batch(IMAGES, case.batch_size, 0, 0, "fusion")
    e, ids = texts[indices].to(device), torch.zeros(case.batch_size, dtype=torch.long, device=device)
    trainer = EmbeddingTrainer(
        peer_unet,
        base.scheduler,
        list(fusion.parameters()),
        lambda: double_fusion(e, fusion, settings.stage2.lambda_, ids),
        settings.stage2.fusion_learning_rate,
        extra_inputs=case.extra_inputs,
        precision=DTYPES[case.compute.precision],
    )
    keys = [(0, position) for position in range(case.batch_size)]
    inputs = (latents[indices], captions[indices], base.schedule, keys)
    shared = sample_noisy_batch(*inputs, seed=0, stage="fusion").to(device)
    loss = trainer.train_step(shared.latents, shared.noise, shared.timesteps)
    run_peer = repeat(lambda _: trainer.train_step(shared.latents))
    yield Side("diffusers' step with the fusion", run_peer, case.batch_size, loss, count_bytes(peer_unet))


def embedding_sides(case: Case) -> Iterator[Side]:
    """Optimization of the embeddings beside the loop of diffusers' Imagic, batched and as published."""
    device, settings = best_device(), case.settings
    base = build_base(case.shape, device, weight_dtype(case.compute))
    stage2, size = settings.stage2, case.batch_size
    peer_unet = _copy_unet(base, case)
    latents, start = random_latents(case.shape, 4 * size), random_conditioning(case.shape, 4 * size)
    keys = [f"{number}.png" for number in range(4 * size)]
    losses: list[float] = []

    def run(count: int) -> float:
        seconds: list[float] = []

        def note(done: int, total: int, metrics: Any = None) -> None:
            seconds.append(time.perf_counter())

        context = TrainContext(seed=0, compute=case.compute, on_progress=note)
        short = stage2.model_copy(update={"embedding_steps": max(1, count // 3)})
        _, history = optimize_all_embeddings(base, latents, start, keys, short, context)
        losses.append(history[0]["loss_first"])
        return (seconds[-1] - seconds[0]) / (3 * max(1, count // 3))

    run(3)
    yield Side(case.name, run, size, losses[0], count_bytes(base.unet))
    embeddings = start.tokens[:size].to(device, copy=True).requires_grad_(True)
    arguments = (base.scheduler, [embeddings], lambda: embeddings, stage2.embedding_learning_rate)
    trainer = EmbeddingTrainer(
        peer_unet, *arguments, extra_inputs=case.extra_inputs, precision=DTYPES[case.compute.precision]
    )
    first = [(key, 0) for key in keys[:size]]
    inputs = (latents[:size], start[:size], base.schedule, first)
    shared = sample_noisy_batch(*inputs, seed=0, stage="refine").to(device)
    loss = trainer.train_step(shared.latents, shared.noise, shared.timesteps)
    run_peer = repeat(lambda _: trainer.train_step(shared.latents))
    yield Side("diffusers' Imagic loop, batched, bf16", run_peer, size, loss, count_bytes(peer_unet))
    if case.shape.pooled is not None:
        return
    single = torch.randn(1, *case.shape.text, device=device).requires_grad_(True)
    published = build_unet(case.shape, device, torch.float32)
    loop = EmbeddingTrainer(
        published, base.scheduler, [single], lambda: single, stage2.embedding_learning_rate, precision=torch.float32
    )
    yield Side(
        "diffusers' Imagic loop, as published",
        repeat(lambda _: loop.train_step(shared.latents[:1])),
        1,
        None,
        count_bytes(published),
    )


def _copy_unet(base: Any, case: Case) -> Any:
    """Return a UNet with the weights of `base`, in the memory format of diffusers' scripts."""
    unet = build_unet(case.shape, base.device, weight_dtype(case.compute))
    unet.load_state_dict(base.unet.state_dict())
    return unet
