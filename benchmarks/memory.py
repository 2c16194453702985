"""Peak memory of one step of Stages II and III at Stable Diffusion 1.5's size, by mode, with random weights.

    .venv/bin/python -m benchmarks.memory [--resolution 512] [--mode NAME ...]

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
}


def measure(mode: str, resolution: int) -> dict[str, float]:
    """Run one step of `mode` in this process, and measure its peak memory in bytes and its duration in seconds."""
    import torch

    from hand1000.config.settings import Settings, load_settings
    from hand1000.core.devices import best_device
    from hand1000.models.conditioning import Conditioning
    from hand1000.models.small_base import build_scheduler
    from hand1000.models.stable_diffusion import StableDiffusion
    from hand1000.training.batches import TrainingSet
    from hand1000.training.context import TrainContext
    from hand1000.training.precision import weight_dtype
    from hand1000.training.stage2 import optimize_all_embeddings
    from hand1000.training.stage3 import Stage3Trainer

    values = load_settings("default").model_dump()
    values["stage2"] |= {"embedding_steps": 1, "embedding_batch_size": 1}
    values["stage3"] |= {"steps": 1, "batch_size": 1, "micro_batch_size": 1} | MODES[mode].get("stage3", {})
    values["compute"] |= MODES[mode]["compute"]
    settings = Settings.model_validate(values)
    device = best_device()
    frozen = mode.startswith("Stage II,") or settings.stage3.training_mode == "lora"
    unet = random_unet(weight_dtype(settings.compute) if frozen else torch.float32)
    base = StableDiffusion(None, None, None, unet.to(device), build_scheduler(), "random")
    latents, text = torch.randn(1, 4, resolution // 8, resolution // 8), Conditioning(torch.randn(1, 77, 768))
    context = TrainContext(seed=0, compute=settings.compute)
    started = time.monotonic()
    if mode.startswith("Stage II,"):
        optimize_all_embeddings(base, latents, text, ["image"], settings.stage2, context)
    else:
        data = TrainingSet(latents, text, null_conditioning=text, gesture_ids=torch.zeros(1, dtype=torch.long))
        Stage3Trainer(base, data, settings.stage3, context).train()
    seconds = time.monotonic() - started
    if device.type == "cuda":
        return {"bytes": torch.cuda.max_memory_allocated(), "seconds": seconds}
    return {"bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, "seconds": seconds}


def random_unet(dtype, sample_size: int = 64):
    """Build Stable Diffusion 1.5's UNet with 859.5 million random weights of `dtype`."""
    import torch
    from diffusers import UNet2DConditionModel

    torch.set_default_dtype(dtype)
    try:
        return UNet2DConditionModel(sample_size=sample_size, cross_attention_dim=768).requires_grad_(False).eval()
    finally:
        torch.set_default_dtype(torch.float32)


def main() -> None:
    """Measure each mode in its own process and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resolution", type=int, default=512)
    parser.add_argument("--mode", action="append", choices=list(MODES))
    options = parser.parse_args()
    print(f"| mode, batch 1, {options.resolution} px | peak GB | seconds |\n| --- | --- | --- |")
    for mode in options.mode or MODES:
        command = [
            sys.executable,
            "-c",
            f"import benchmarks.memory as m; m.print_measurement({mode!r}, {options.resolution})",
        ]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        peak = json.loads(output.splitlines()[-1])
        print(f"| {mode} | {peak['bytes'] / 1e9:.2f} | {peak['seconds']:.0f} |", flush=True)


def print_measurement(mode: str, resolution: int) -> None:
    """Print the result of `measure` as one line of JSON."""
    print(json.dumps(measure(mode, resolution)))


if __name__ == "__main__":
    main()
