"""Peak memory of one step of Stages II and III at the size of released models, by mode, with random weights.

    .venv/bin/python -m benchmarks.memory [--resolution PIXELS] [--mode NAME ...]

Each mode runs in its own process. On a CPU, the peak is the resident memory of the process, including libraries
(0.6 GB) and activations; on a GPU, it is the memory that PyTorch allocated. Prints a Markdown table; 1 GB is 10^9
bytes.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

CHECKPOINTED = {"gradient_checkpointing": True}
MODES: dict[str, dict] = {
    "Stage II, fp32": {"compute": CHECKPOINTED},
    "Stage II, bf16": {"compute": CHECKPOINTED | {"precision": "bf16"}},
    "Stage III, all weights, fp32": {"stage3": {"ema_decay": 0.0}, "compute": CHECKPOINTED},
    "Stage III, all weights, averaged": {"stage3": {"ema_decay": 0.999}, "compute": CHECKPOINTED},
    "Stage III, adapters, fp32": {"stage3": {"training_mode": "lora"}, "compute": CHECKPOINTED},
    "Stage III, adapters, bf16": {"stage3": {"training_mode": "lora"}, "compute": CHECKPOINTED | {"precision": "bf16"}},
    "SDXL, Stage II, bf16": {"backbone": "sdxl", "compute": {}},
    "SDXL, Stage III, adapters, bf16": {"backbone": "sdxl", "compute": {}},
}

GPU_STEPS = 6
"""Steps on a GPU; the duration is that of the last one, except for embeddings, where it is that of all."""


def measure(mode: str, resolution: int | None) -> dict[str, float]:
    """Run `mode` in this process; measure its peak memory in bytes and the seconds of its last step.

    On a CPU it is one step, on a GPU several, of which the first ones are slower.
    """
    import torch

    from benchmarks.backbone_models import SHAPES, build_backbone, random_conditioning
    from hand1000.config.settings import Settings, load_settings
    from hand1000.core.devices import best_device
    from hand1000.training.batches import TrainingSet
    from hand1000.training.context import TrainContext
    from hand1000.training.encoded_dataset import EncodedDataset
    from hand1000.training.precision import weight_dtype
    from hand1000.training.stage2 import optimize_all_embeddings, train_fusion
    from hand1000.training.stage3 import Stage3Trainer

    device = best_device()
    name, count = MODES[mode].get("backbone", "sd"), 1 if device.type == "cpu" else GPU_STEPS
    values = load_settings("default" if name == "sd" else name).model_dump()
    values["stage2"] |= {"embedding_steps": count, "embedding_batch_size": 1}
    values["stage2"] |= {"fusion_steps": count, "fusion_batch_size": 1}
    values["stage3"] |= {"steps": count, "batch_size": 1, "micro_batch_size": 1} | MODES[mode].get("stage3", {})
    values["compute"] |= MODES[mode]["compute"]
    settings = Settings.model_validate(values)
    is_stage2 = "Stage II," in mode
    frozen = is_stage2 or settings.stage3.training_mode == "lora"
    base = build_backbone(name, device, weight_dtype(settings.compute) if frozen else torch.float32)
    side = (resolution or SHAPES[name].pixels) // 8
    latents, text = torch.randn(1, 4, side, side), random_conditioning(name)
    times = [time.monotonic()]
    context = TrainContext(seed=0, compute=settings.compute, on_progress=lambda *_: times.append(time.monotonic()))
    if is_stage2 and settings.stage2.fusion == "low_rank":
        assert text.pooled is not None
        names = ["a hand"]
        data = EncodedDataset(
            latents, text.tokens, text.tokens[0], names, names, names, names, ["four"], text.pooled, text.pooled[0]
        )
        train_fusion(base, data, {"four": torch.randn(63)}, settings.stage2, context)
    elif is_stage2:
        optimize_all_embeddings(base, latents, text, ["image"], settings.stage2, context)
    else:
        images = TrainingSet(latents, text, null_conditioning=text, gesture_ids=torch.zeros(1, dtype=torch.long))
        Stage3Trainer(base, images, settings.stage3, context).train()
    seconds = times[-1] - times[-2]
    if device.type == "cuda":
        return {"bytes": torch.cuda.max_memory_allocated(), "seconds": seconds}
    return {"bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, "seconds": seconds}


def main() -> None:
    """Measure each mode in its own process and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resolution", type=int, help="by default that of the model")
    parser.add_argument("--mode", action="append", choices=list(MODES))
    options = parser.parse_args()
    print("| mode, one image | peak GB | seconds |\n| --- | --- | --- |")
    for mode in options.mode or MODES:
        peak = measure_alone(mode, options.resolution)
        print(f"| {mode} | {peak['bytes'] / 1e9:.2f} | {peak['seconds']:.3g} |", flush=True)


def measure_alone(mode: str, resolution: int | None = None) -> dict[str, float]:
    """Measure `mode` in a process of its own."""
    command = [
        sys.executable,
        "-c",
        f"import benchmarks.memory as m; m.print_measurement({mode!r}, {resolution!r})",
    ]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    measured: dict[str, float] = json.loads(output.splitlines()[-1])
    return measured


def print_measurement(mode: str, resolution: int | None) -> None:
    """Print the result of `measure` as one line of JSON."""
    print(json.dumps(measure(mode, resolution)))


if __name__ == "__main__":
    main()
