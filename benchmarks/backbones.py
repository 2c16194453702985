"""What each backbone needs at true size: weights, memory of one training step, and operations, counted without weights.

    .venv/bin/python -m benchmarks.backbones [--measure]

Everything is computed on fake tensors, which have shapes and no numbers. The memory is that of a step of one image with
gradient checkpointing: every tensor that is alive at the peak, of the denoiser only, as Stages II and III hold it. It
leaves out what a GPU's libraries take and the fragments of its allocator. `--measure` runs the same steps of Stable
Diffusion XL with random weights (`benchmarks.memory`), on a GPU if there is one, and prints them beside the count.
Prints a Markdown table; 1 GB is 10^9 bytes and 1 TFLOP 10^12 operations, a multiplication and an addition being two.
"""

import argparse
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.backbone_models import SHAPES, build_backbone, random_conditioning
from benchmarks.memory import measure_alone
from hand1000.config.settings import Settings, load_settings
from hand1000.models.backbone import Backbone
from hand1000.models.fusion import GestureFusion, double_fusion
from hand1000.models.low_rank_fusion import LowRankFusion
from hand1000.training.batches import NoisyBatch
from hand1000.training.checkpoint import trainable_parameters
from hand1000.training.ema import EMA
from hand1000.training.lora import add_adapter
from hand1000.training.losses import diffusion_loss
from hand1000.training.precision import build_optimizer, weight_dtype


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of all tensors that operations inside the context make, while they live."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.now = self.peak = 0

    def add(self, tensor: torch.Tensor) -> None:
        """Count a tensor's storage once, until it is freed."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self.alive:
            self.alive[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self.now -= self.alive.pop(key, 0)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count its results."""
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.add(tensor)
        return result


@dataclass(frozen=True)
class Counts:
    """Counts of one backbone; bytes and operations are those of one image.

    Attributes:
        parameters: Weights of the denoiser.
        forward: Operations of one prediction.
        stage2: Peak bytes and operations of a training step of the fusion.
        stage3: Peak bytes and operations of a training step of the adapters.
        lora: Numbers in a LoRA of the adapters and the fusion; None if the rank of the fusion has no bound.
    """

    parameters: int
    forward: float
    stage2: tuple[int, float]
    stage3: tuple[int, float]
    lora: int | None


def count(name: str, settings: Settings) -> Counts:
    """Count a backbone with the adapters, the fusion and the precision of `settings`."""
    base = build_backbone(name, "meta", weight_dtype(settings.compute))
    parameters = sum(parameter.numel() for parameter in base.denoiser.parameters())
    # Like `configure_denoiser`, of which the rest decides no memory.
    base.denoiser.enable_gradient_checkpointing()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        _make_fake(base.denoiser)
        batch = _random_batch(name, base)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            diffusion_loss(base, batch, settings.compute)
        stage2 = _count_fusion_step(base, batch, settings)
    base = build_backbone(name, "meta", weight_dtype(settings.compute))
    base.denoiser.enable_gradient_checkpointing()
    # peft moves its layers to the device of the weights, which fake ones do not allow.
    add_adapter(base.denoiser, settings.stage3.lora, seed=0)
    with mode:
        lora = _count_lora(base, settings) if settings.stage2.fusion == "low_rank" else None
        _make_fake(base.denoiser.train())
        stage3 = _count_adapter_step(base, batch, settings)
    return Counts(parameters, float(counter.get_total_flops()), stage2, stage3, lora)


def _count_lora(base: Backbone, settings: Settings) -> int:
    """Count the numbers of a file as `hand1000.export.lora` writes it."""
    denoiser = base.denoiser
    adapters = sum(weight.numel() for weight in trainable_parameters(denoiser).values())
    weights = [
        module.weight.shape
        for name, module in denoiser.named_modules()
        if name.removesuffix(".base_layer").endswith(base.text_layers) and isinstance(module, torch.nn.Linear)
    ]
    return adapters + sum((settings.stage2.fusion_rank + 1) * (rows + columns) for rows, columns in weights)


def _make_fake(module: torch.nn.Module) -> None:
    """Replace the weights by fake ones of a CPU, on which attention has the fused kernel."""
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                fake = torch.empty(weight.shape, dtype=weight.dtype)
                part._parameters[name] = torch.nn.Parameter(fake, requires_grad=weight.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def _random_batch(name: str, base: Backbone) -> NoisyBatch:
    shape = (1, *base.latent_shape)
    timesteps = torch.zeros(1, dtype=torch.long)
    return NoisyBatch(torch.randn(shape), random_conditioning(name), torch.randn(shape), timesteps)


def _count_fusion_step(base: Backbone, batch: NoisyBatch, settings: Settings) -> tuple[int, float]:
    tokens, stage2 = batch.conditioning.tokens, settings.stage2
    is_low_rank = stage2.fusion == "low_rank"
    fusion: Any = (
        LowRankFusion(tokens.shape[-1], ("four",), 0, stage2.fusion_rank)
        if is_low_rank
        else GestureFusion(tokens.shape[-1], ("four",))
    )
    optimizer = torch.optim.Adam(fusion.parameters(), lr=stage2.fusion_learning_rate)

    def step() -> None:
        h = double_fusion(tokens, fusion, stage2.lambda_, torch.zeros(1, dtype=torch.long))
        noisy = NoisyBatch(batch.latents, batch.conditioning.with_tokens(h), batch.noise, batch.timesteps)
        diffusion_loss(base, noisy, settings.compute).backward()
        optimizer.step()

    return _count_step(step, [*base.denoiser.parameters(), *fusion.parameters(), *fusion.buffers()])


def _count_adapter_step(base: Backbone, batch: NoisyBatch, settings: Settings) -> tuple[int, float]:
    stage3 = settings.stage3
    parameters = list(trainable_parameters(base.denoiser).values())
    ema = EMA(base.denoiser, stage3.ema_decay)
    optimizer = build_optimizer(stage3.optimizer, parameters, learning_rate=1e-4, weight_decay=stage3.weight_decay)

    def step() -> None:
        diffusion_loss(base, batch, settings.compute).backward()
        optimizer.step()

    return _count_step(step, [*base.denoiser.parameters(), *ema.tensors.values()])


def _count_step(step: Callable[[], None], held: list[torch.Tensor]) -> tuple[int, float]:
    """Return the peak of the bytes of two steps, with those that are held before, and the operations of a third."""
    with PeakMemory() as memory:
        for tensor in held:
            memory.add(tensor)
        step()
        step()
    # By itself, since the hooks of the counter keep what gradient checkpointing frees.
    with FlopCounterMode(display=False) as counter:
        step()
    return memory.peak, float(counter.get_total_flops())


def format_table(names: list[str]) -> str:
    """Return the table of the backbones as Markdown."""
    header = ["backbone", "pixels", "weights", "bf16, GB", "prediction, TFLOP", "Stage II, GB", "TFLOP"]
    header += ["Stage III with adapters, GB", "TFLOP", "LoRA in half precision, MB"]
    lines = ["| " + " | ".join(header) + " |", "| --- " * len(header) + "|"]
    for name in names:
        preset = "fast" if name == "sd" else name
        values = load_settings(preset).with_overrides({"compute.gradient_checkpointing": True})
        counts, shape = count(name, values), SHAPES[name]
        cells = [shape.title, f"{shape.pixels}", f"{counts.parameters / 1e9:.2f} billion"]
        cells += [f"{2 * counts.parameters / 1e9:.2f}", f"{counts.forward / 1e12:.2f}"]
        for size, operations in (counts.stage2, counts.stage3):
            cells += [f"{size / 1e9:.2f}", f"{operations / 1e12:.2f}"]
        cells.append("-" if counts.lora is None else f"{2 * counts.lora / 1e6:.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the table, and the measured steps beside the count if they are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true")
    if not parser.parse_args().measure:
        print(format_table(list(SHAPES)))
        return
    counts = count("sdxl", load_settings("sdxl"))
    print("| step, one image | counted GB | measured GB | counted TFLOP | seconds | images a second |")
    print("| --- | --- | --- | --- | --- | --- |")
    for mode, (size, operations) in (
        ("SDXL, Stage II, bf16", counts.stage2),
        ("SDXL, Stage III, adapters, bf16", counts.stage3),
    ):
        measured = measure_alone(mode)
        cells = [mode, f"{size / 1e9:.2f}", f"{measured['bytes'] / 1e9:.2f}", f"{operations / 1e12:.2f}"]
        cells += [f"{measured['seconds']:.3g}", f"{1 / measured['seconds']:.3g}"]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
