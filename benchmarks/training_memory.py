"""Time and peak memory of a step at Stable Diffusion 1.5's shape, each side in a process of its own, in fp32.

A side needs up to 16 GB. A process builds its model, makes a step that is not counted, then `STEPS`. The losses
of the first step, on equal weights and inputs, are compared. Each side runs as often as the time of a row allows.
"""

import dataclasses
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.gpu_models import SD15, Shape
from benchmarks.operations import StepProfile, profile_step
from benchmarks.rows import BenchOptions, Row, failed_row, log_start

STEPS = 2
_PIXELS_256 = dataclasses.replace(SD15, name="SD 1.5, 256 px", latents=(4, 32, 32), pixels=256)
_LOSS_TOLERANCE = 1e-4
_GIGABYTE = 1e9


@dataclasses.dataclass(frozen=True)
class _Goals:
    """The least ratios of time and of memory."""

    time: float
    memory: float | None = None


_MODES = {
    "all weights": _Goals(1.5),
    "LoRA": _Goals(2.0),
    "embeddings": _Goals(3.0, 3.0),
}
"""The peers of the first two are diffusers' text-to-image scripts, that of the embeddings is the authors' step."""


def measure_rows(options: BenchOptions) -> Iterator[Row]:
    """Yield two rows for each mode, the time of a step and the peak memory; the short form is that of `training`."""
    if options.short:
        return
    for mode, goals in _MODES.items():
        log_start(_row_name(mode), _peer_name(mode))
        try:
            yield from _make_rows(mode, goals, _run_rounds(mode, options))
        except Exception as error:
            for part in ("a step", "peak memory"):
                yield failed_row(f"{_row_name(mode)}: {part}", _peer_name(mode), error)


def _run_rounds(mode: str, options: BenchOptions) -> dict[str, list[dict[str, Any]]]:
    """Run both sides in turn, at least once."""
    results: dict[str, list[dict[str, Any]]] = {"product": [], "peer": []}
    started = time.monotonic()
    rounds = 0
    while True:
        for side in ("product", "peer") if rounds % 2 == 0 else ("peer", "product"):
            results[side].append(_run_process(side, mode))
        rounds += 1
        spent = time.monotonic() - started
        if rounds == options.repeats or spent * (rounds + 1) / rounds > options.seconds:
            return results


def _make_rows(mode: str, goals: _Goals, results: dict[str, list[dict[str, Any]]]) -> Iterator[Row]:
    losses = [result["loss"] for side in results.values() for result in side]
    is_equal = max(losses) - min(losses) <= _LOSS_TOLERANCE * max(losses)
    name, peer = _row_name(mode), _peer_name(mode)
    values = {side: tuple(seconds for run in runs for seconds in run["seconds"]) for side, runs in results.items()}
    peaks = {side: tuple(run["peak"] / _GIGABYTE for run in runs) for side, runs in results.items()}
    step = Row(f"{name}: a step", peer, values["product"], values["peer"], goal=goals.time, equal=is_equal)
    yield dataclasses.replace(step, note=StepProfile(**results["product"][-1]["profile"]).describe(step.ratio))
    state = results["product"][-1]["state"] / _GIGABYTE
    yield Row(
        f"{name}: peak memory",
        peer,
        peaks["product"],
        peaks["peer"],
        goal=goals.memory,
        unit="GB",
        note=f"{state:.2f} GB of it before the first step: the libraries, the weights and what is trained",
    )


def _row_name(mode: str) -> str:
    return f"Stage {'II' if mode == 'embeddings' else 'III'}, {_PIXELS_256.name}, {mode}, batch 1"


def _peer_name(mode: str) -> str:
    return "the authors' step" if mode == "embeddings" else "diffusers' text-to-image script"


def _run_process(side: str, mode: str) -> dict[str, Any]:
    code = "import sys; from benchmarks.training_memory import print_side; print_side(*sys.argv[1:])"
    command = [sys.executable, "-c", code, side, mode]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


def print_side(side: str, mode: str, shape: Shape = _PIXELS_256) -> None:
    """Print seconds of each step, peak memory, first loss and, of the product, a profile of one side as JSON.

    `state` is the memory in bytes before the first step.
    """
    from hand1000.core.devices import peak_memory

    warnings.filterwarnings("ignore", message=".*CPU autocast.*")
    step = {"product": _build_product, "peer": _build_peer}[side](shape, mode)
    state = peak_memory()
    loss, seconds = step(), []
    for _ in range(STEPS):
        begun = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begun)
    result: dict[str, Any] = {"seconds": seconds, "peak": peak_memory(), "state": state, "loss": loss}
    if side == "product":
        result["profile"] = dataclasses.asdict(profile_step(step))
    print(json.dumps(result))


def _prepare(shape: Shape, mode: str) -> tuple[Any, Any, Any, Any]:
    """Return case, base model, latents and conditioning, the same for both sides."""
    import torch

    from benchmarks.gpu_models import build_base, random_conditioning
    from benchmarks.gpu_sides import random_latents
    from benchmarks.training import make_case
    from hand1000.core.devices import best_device

    changes = {"stage3.training_mode": "lora"} if mode == "LoRA" else {}
    base = build_base(shape, best_device(), torch.float32)
    return make_case(shape, 1, changes), base, random_latents(shape, 4), random_conditioning(shape, 4)


def _build_product(shape: Shape, mode: str) -> Callable[[], float]:
    import torch

    from hand1000.training.batches import TrainingSet
    from hand1000.training.stage2 import optimize_all_embeddings
    from hand1000.training.stage3 import Stage3Trainer

    case, base, latents, captions = _prepare(shape, mode)
    if mode == "embeddings":
        stage2 = case.settings.stage2.model_copy(update={"embedding_steps": 1})

        def optimize() -> float:
            _, history = optimize_all_embeddings(base, latents[:1], captions[:1], ["0.png"], stage2, case.context)
            return history[0]["loss_first"]

        return optimize
    data = TrainingSet(latents, captions, captions[:1], torch.zeros(len(latents), dtype=torch.long))
    trainer = Stage3Trainer(base, data, case.settings.stage3, case.context)

    def train() -> float:
        trainer.train_step(trainer.sample_batch(trainer.global_step))
        return float(trainer.history[-1]["loss"])

    return train


def _build_peer(shape: Shape, mode: str) -> Callable[[], float]:
    import torch

    from benchmarks.gpu_models import build_base
    from benchmarks.gpu_peers import Encoders, PeerTrainer, add_script_adapter
    from hand1000.training.batches import TrainingSet, sample_noisy_batch
    from hand1000.training.stage3 import Stage3Trainer

    case, base, latents, captions = _prepare(shape, mode)
    unet, device = base.unet, base.unet.device
    if mode == "embeddings":
        item = (latents[:1], captions[:1], base.schedule, [("0.png", 0)])
        noisy_batch = sample_noisy_batch(*item, seed=0, stage="refine")
        noisy = base.scheduler.add_noise(noisy_batch.latents, noisy_batch.noise, noisy_batch.timesteps)
        unet.requires_grad_(True)

        def optimize() -> float:
            embedding = noisy_batch.conditioning.tokens.clone().requires_grad_(True)
            optimizer = torch.optim.Adam([embedding], lr=case.settings.stage2.embedding_learning_rate)
            model_pred = unet(noisy, noisy_batch.timesteps, embedding).sample
            loss = torch.nn.functional.mse_loss(model_pred, noisy_batch.noise)
            loss.backward()
            optimizer.step()
            return loss.item()

        return optimize
    data = TrainingSet(latents, captions, captions[:1], torch.zeros(len(latents), dtype=torch.long))
    # Only its batch is used: a trainer allocates nothing for the weights before its first step.
    shared = Stage3Trainer(base, data, case.settings.stage3, case.context).sample_batch(0).to(device)
    if mode == "LoRA":
        unet.delete_adapters(list(unet.peft_config))
        add_script_adapter(unet, case.settings.stage3.lora.rank)
    else:
        unet.requires_grad_(True)
    unet.train()
    trainer = PeerTrainer(unet, base.scheduler, case.settings.stage3.learning_rate, precision=torch.float32)
    loss = trainer.train_step(shared, draws_noise=False)
    whole = build_base(shape, device, torch.float32, unet_only=False)
    pixels = torch.rand(1, 3, shape.pixels, shape.pixels, device=device) * 2 - 1
    token_ids = torch.ones(1, shape.text[0], dtype=torch.long, device=device)
    trainer.encoders = Encoders(whole.vae, whole.text_encoder, pixels, token_ids)
    del whole
    losses = iter([loss])

    def train() -> float:
        step_loss = trainer.train_step(shared)
        return next(losses, step_loss)

    return train
