"""Speed, utilization and memory of the stages on a GPU, beside diffusers' published training steps on the same GPU.

    python -m benchmarks.gpu [--seconds 240] [--out FOLDER] [--only PART ...] [--tiny]

Weights and data are random, and nothing is downloaded. Each stage runs through this package's own training code, and
in turn with its peers. A row is printed as soon as it is measured. `FOLDER/gpu.json` has all rows. Images a second
count the images of a step; of the embeddings, each image takes `embedding_steps` of them. The utilization (MFU) is
the model's counted operations (`torch.utils.flop_counter`, no recomputation) in a second, against the dense bf16 peak
of an H100, 989 TFLOP/s. Sides whose first losses differ by more than 2 % are reported. The peak memory is what
PyTorch allocated for this side alone; "counted" is the part of weights, gradients, moments and averages. `--tiny`
takes models of a few kilobytes, to test the script without a GPU.
"""

import argparse
import functools
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.gpu_models import ImageFlops
    from benchmarks.gpu_sides import Case, Side

PEAK_TFLOPS = 989.0
"""Dense bf16 peak of an H100 SXM (NVIDIA's data sheet)."""

LOSS_TOLERANCE = 0.02
"""Largest relative difference between the sides' first losses, which they compute in bf16 on the same inputs."""

COLUMNS = (
    "backbone", "stage", "batch", "code", "ms a step (min-max)", "images/s", "MFU", "peak GB", "counted GB",
    "hand1000 is faster by", "first loss",
)  # fmt: skip


class Benchmark:
    """Runs comparisons until the time is used up, and prints and saves each row."""

    def __init__(self, folder: Path | None, seconds: float, rounds: int, steps: int) -> None:
        self.folder, self.rounds, self.steps = folder, rounds, steps
        self.end = time.monotonic() + seconds
        self.rows: list[dict[str, Any]] = []
        print(f"| {' | '.join(COLUMNS)} |\n{'| --- ' * len(COLUMNS)}|", flush=True)

    def compare(
        self, stage: str, case: "Case", sides: Callable[[], "Iterator[Side]"], flops: float, *, steps: int | None = None
    ) -> None:
        """Measure all sides of a comparison in turn; an error of one comparison does not end the others.

        Args:
            stage: Name of the stage.
            case: Backbone and batch.
            sides: Builds the sides, ours first.
            flops: Operations of one image in one step.
            steps: Steps of a round, if they differ from the benchmark's.
        """
        if time.monotonic() > self.end:
            print(f"{case.shape.name}, {stage}: left out, the time is used up", file=sys.stderr, flush=True)
            return
        try:
            measured = self._measure(sides, steps or self.steps)
        except Exception as error:  # noqa: BLE001 (the rows that follow are worth more than a traceback)
            print(f"{case.shape.name}, {stage}: {type(error).__name__}: {error!s:.500}", file=sys.stderr, flush=True)
            return
        finally:
            gc.collect()
            _empty_cache()
        best = _median(measured[0][1])
        for side, seconds, peak in measured:
            middle = _median(seconds)
            images = side.images / middle
            row = {
                "backbone": case.shape.name,
                "stage": stage,
                "batch": side.images,
                "code": side.name,
                "seconds": seconds,
                "images_per_second": images,
                "mfu": images * flops / (PEAK_TFLOPS * 1e12),
                "peak_bytes": peak,
                "state_bytes": side.state_bytes,
                "speedup": images and (measured[0][0].images / best) / images,
                "first_loss": side.first_loss,
            }
            self.rows.append(row)
            print(_format_row(row), flush=True)
        losses = [side.first_loss for side, *_ in measured if side.first_loss is not None]
        if max(losses) - min(losses) > LOSS_TOLERANCE * max(losses):
            print(f"{case.shape.name}, {stage}: the first losses differ: {losses}", file=sys.stderr, flush=True)
        if self.folder is not None:
            (self.folder / "gpu.json").write_text(json.dumps(self.rows, indent=1))

    def _measure(self, sides: Callable[[], "Iterator[Side]"], steps: int) -> list[tuple["Side", list[float], int]]:
        built: list[Side] = []
        peaks: list[int] = []
        before = _reset_peak()
        for side in sides():
            side.run(min(2, steps))
            built.append(side)
            peaks.append(_peak() - before)
            before = _reset_peak()
        seconds: list[list[float]] = [[] for _ in built]
        for _ in range(self.rounds):
            for side, times in zip(built, seconds, strict=True):
                times.append(side.run(steps))
        return list(zip(built, seconds, peaks, strict=True))


def _format_row(row: dict[str, Any]) -> str:
    seconds = sorted(row["seconds"])
    loss = row["first_loss"]
    cells = (
        row["backbone"],
        row["stage"],
        row["batch"],
        row["code"],
        f"{1000 * _median(seconds):.1f} ({1000 * seconds[0]:.1f}-{1000 * seconds[-1]:.1f})",
        f"{row['images_per_second']:.1f}",
        f"{row['mfu']:.1%}",
        f"{row['peak_bytes'] / 1e9:.2f}" if row["peak_bytes"] else "",
        f"{row['state_bytes'] / 1e9:.2f}" if row["state_bytes"] else "",
        f"{row['speedup']:.2f}x",
        "" if loss is None else f"{loss:.4f}",
    )
    return f"| {' | '.join(map(str, cells))} |"


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _reset_peak() -> int:
    """Start a new measurement of the peak and return the bytes that are allocated now."""
    import torch

    if not torch.cuda.is_available():
        return 0
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def _peak() -> int:
    import torch

    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0


def _empty_cache() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def run_parts(benchmark: Benchmark, parts: list[str], *, tiny: bool) -> None:
    """Run the comparisons named `parts`, all if there are none; what matters most comes first."""
    from benchmarks import gpu_sides as sides_of
    from benchmarks import gpu_stage2 as stage2
    from benchmarks.gpu_models import SD15, SDXL, TINY, count_flops
    from hand1000.config.settings import ComputeSettings

    compute = ComputeSettings(
        precision="bf16",
        attention="sdpa",
        gradient_checkpointing=False,
        channels_last=True,
        compile=False,
        cuda_graphs=True,
    )
    compiled = compute.model_copy(update={"compile": True})
    sd15 = TINY if tiny else SD15
    counted: dict[str, ImageFlops] = {}
    lora, ema = {"stage3.training_mode": "lora"}, {"stage3.ema_decay": 0.999}

    def whole(case: sides_of.Case) -> Iterator[sides_of.Side]:
        return sides_of.stage3_sides(case, with_encoders=True)

    def step(case: sides_of.Case) -> Iterator[sides_of.Side]:
        return sides_of.stage3_sides(case, with_encoders=False)

    drawing_steps = 2 if tiny else 20

    def drawing(case: sides_of.Case) -> Iterator[sides_of.Side]:
        return sides_of.drawing_sides(case, drawing_steps)

    full, frozen = "train", "backpropagate"
    # Part: stage, sides, counted operations, backbone, batch, compute settings, options.
    comparisons: dict[str, tuple[str, Any, str, Any, int, ComputeSettings, dict[str, Any]]] = {
        "full-16": ("III, all weights", whole, full, sd15, 16, compute, {}),
        "full-4": ("III, all weights", step, full, sd15, 4, compute, {}),
        "lora-16": ("III, LoRA", whole, frozen, sd15, 16, compute, lora),
        "lora-4": ("III, LoRA", step, frozen, sd15, 4, compute, lora),
        "embeddings-16": ("II, embeddings", stage2.embedding_sides, frozen, sd15, 16, compute, {}),
        "embeddings-4": ("II, embeddings", stage2.embedding_sides, frozen, sd15, 4, compute, {}),
        "fusion-4": ("II, fusion", stage2.fusion_sides, frozen, sd15, 4, compute, {}),
        "ema-16": ("III, all weights, EMA", step, full, sd15, 16, compute, ema),
        "drawing": (f"drawing, {drawing_steps} steps", drawing, "drawing", sd15, 8, compute, {}),
        "sdxl-lora": ("III, LoRA", step, frozen, SDXL, 2, compute, lora),
        "sdxl-embeddings": ("II, embeddings", stage2.embedding_sides, frozen, SDXL, 2, compute, {}),
        "compiled-embeddings": ("II, embeddings", stage2.embedding_sides, frozen, sd15, 16, compiled, {}),
        "compiled-full": ("III, all weights", step, full, sd15, 16, compiled, {}),
        "compiled-lora": ("III, LoRA", step, frozen, sd15, 16, compiled, lora),
    }
    if unknown := set(parts) - set(comparisons):
        raise SystemExit(f"--only: {', '.join(sorted(unknown))}: not one of {', '.join(comparisons)}")
    for part, (stage, sides, operations, shape, size, settings, options) in comparisons.items():
        if parts and part not in parts:
            continue
        if shape.name not in counted:
            counted[shape.name] = count_flops(shape)
        flops = counted[shape.name]
        is_drawing = operations == "drawing"
        amount = 2 * drawing_steps * flops.forward + flops.decode if is_drawing else getattr(flops, operations)
        case = sides_of.Case(shape, min(size, 2) if tiny else size, settings, options)
        benchmark.compare(stage, case, functools.partial(sides, case), amount, steps=1 if is_drawing else None)


def main() -> None:
    """Print the table and save it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=240, help="no comparison begins after so many seconds")
    parser.add_argument("--out", type=Path, help="existing folder for gpu.json")
    parser.add_argument("--only", action="append", default=[], metavar="PART", help="full-16, lora-4, drawing, ...")
    parser.add_argument("--rounds", type=int, default=3, help="rounds in which the sides take turns")
    parser.add_argument("--steps", type=int, default=6, help="steps of a side in a round")
    parser.add_argument("--tiny", action="store_true", help="models of a few kilobytes, to test this script")
    options = parser.parse_args()
    # Before torch is imported: all sides share one cache of memory, which must not be cut into pieces.
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    benchmark = Benchmark(options.out, options.seconds, options.rounds, options.steps)
    run_parts(benchmark, options.only, tiny=options.tiny)


if __name__ == "__main__":
    main()
