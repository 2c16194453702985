"""Share of each kind of operation in a step on a processor: `python -m benchmarks.operators`.

A step of Stage III and of Stage II, and the prediction of a drawing, in the shape of the shipped small base model and
fp32, as PyTorch's profiler attributes the time. Convolutions and matrix products are the part that a peer computes in
the same way, so they bound what fewer passes over memory can gain.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator

import torch
from torch.profiler import profile

from benchmarks.gpu_models import build_base, random_conditioning
from benchmarks.gpu_sides import IMAGES, random_latents
from benchmarks.training import make_case, small_shape
from hand1000.core.devices import best_device
from hand1000.models.lean_blocks import use_lean_blocks
from hand1000.training.batches import TrainingSet
from hand1000.training.stage2 import optimize_all_embeddings
from hand1000.training.stage3 import Stage3Trainer

KINDS = {
    "convolutions": ("convolution", "conv2d"),
    "matrix products": ("addmm", "aten::mm", "bmm"),
    "attention": ("scaled_dot_product", "softmax"),
    "norms": ("group_norm", "layer_norm", "GroupNorm", "LayerNorm"),
    "activations": ("silu", "gelu"),
    "copies": ("copy_", "aten::cat", "clone", "contiguous"),
    "optimizer": ("adam", "foreach", "linalg_vector_norm"),
}
"""Parts of the operators' names; the first kind that matches counts."""


def steps(batch_size: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield the name of each step and the function that makes one."""
    shape, device = small_shape(), best_device()
    case = make_case(shape, batch_size, {"stage2.embedding_steps": 1})
    latents, captions = random_latents(shape), random_conditioning(shape, IMAGES)
    base = build_base(shape, device, torch.float32)
    data = TrainingSet(latents, captions, captions[:1], torch.zeros(IMAGES, dtype=torch.long))
    trainer = Stage3Trainer(base, data, case.settings.stage3, case.context)
    yield "Stage III", lambda: trainer.train_step(trainer.sample_batch(trainer.global_step))
    frozen, batch = build_base(shape, device, torch.float32), slice(batch_size)
    keys = [f"{number}.png" for number in range(batch_size)]
    inputs = (latents[batch], captions[batch], keys, case.settings.stage2, case.context)
    yield "Stage II", lambda: optimize_all_embeddings(frozen, *inputs)
    frozen.unet.to(memory_format=torch.channels_last)
    use_lean_blocks(frozen.unet)
    yield "drawing", torch.no_grad()(lambda: frozen.predict(latents[batch], torch.tensor(500), captions[batch]))


def measure_shares(step: Callable[[], object]) -> dict[str, float]:
    """Return the share of each kind, after a step that is not counted."""
    step()
    with profile() as profiler:
        step()
    seconds: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages():
        kind = next((kind for kind, parts in KINDS.items() if any(part in event.key for part in parts)), "other")
        seconds[kind] += event.self_cpu_time_total
    total = sum(seconds.values())
    return {kind: seconds[kind] / total for kind in (*KINDS, "other")}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16, help="images of a step (16)")
    batch_size = parser.parse_args().batch
    print(f"| step, batch {batch_size} | {' | '.join((*KINDS, 'other'))} |\n" + "| --- " * (len(KINDS) + 2) + "|")
    for name, step in steps(batch_size):
        print(f"| {name} | {' | '.join(f'{share:.0%}' for share in measure_shares(step).values())} |", flush=True)


if __name__ == "__main__":
    main()
