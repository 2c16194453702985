"""Hours and money for one gesture at Stable Diffusion 1.x size on a GPU, from counted operations.

    .venv/bin/python -m benchmarks.cost [--settings default] [--images 1000] [--utilization 0.35] [--gpu ...]
        [--measured benchmarks/measured/gpu.json]

The floating-point operations of each stage are counted on the real classes, without weights. The share of the GPU's
peak that is reached is an assumption (`--utilization`), or the best that `benchmarks.gpu` measured of each stage
(`--measured`), which holds for bf16 and for the GPU it was measured on. The prices are assumptions, and waiting for
pods, data and disks is not counted. Prints two Markdown tables; 1 PFLOP is 10^15 operations, a multiplication and an
addition being two.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hand1000.config.settings import Settings

GPUS = {
    # Dense peak in TFLOP per second in fp32 without TF32 and in bf16 (NVIDIA's data sheets), and US dollars an hour
    # (AWS on demand in us-east-1, a share of the instance by GPU; assumed, they change).
    "A10G": {"fp32": 31.2, "bf16": 70.0, "dollars": 1.01},
    "A100": {"fp32": 19.5, "bf16": 312.0, "dollars": 2.75},
    "H100": {"fp32": 67.0, "bf16": 989.0, "dollars": 6.88},
}
DEFAULT_UTILIZATION = 0.35

# The stages of `stage_operations`, each with the beginning of the names that `benchmarks.gpu` gives to its comparisons.
_MEASURED_AS = {
    "Stage II, fusion": "II, fusion",
    "Stage II, embeddings": "II, embeddings",
    "Stage III": "III, ",
    "images of base, champion and tuned model": "drawing",
}


@dataclass(frozen=True)
class Counts:
    """Operations of one image at 512 px.

    Attributes:
        forward: One prediction of the UNet.
        train: Forward and backward pass with gradients of all weights.
        backpropagate: Forward and backward pass with gradients of the activations only, for Stage II and adapters.
        encode: The autoencoder's encoder.
        decode: The autoencoder's decoder.
    """

    forward: float
    train: float
    backpropagate: float
    encode: float
    decode: float


def count_operations() -> Counts:
    """Count the operations of Stable Diffusion 1.x on meta tensors, which hold no numbers."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
        )
        latents, text = torch.empty(1, 4, 64, 64), torch.empty(1, 77, 768)
        timestep = torch.zeros(1, dtype=torch.long)

        def count(function) -> float:
            with FlopCounterMode(display=False) as counter:
                function()
            return float(counter.get_total_flops())

        train = count(lambda: unet(latents, timestep, text).sample.sum().backward())
        unet.requires_grad_(False)
        embedding = text.clone().requires_grad_(True)
        backpropagate = count(lambda: unet(latents, timestep, embedding).sample.sum().backward())
        with torch.no_grad():
            forward = count(lambda: unet(latents, timestep, text))
            encode = count(lambda: vae.encode(torch.empty(1, 3, 512, 512)))
            decode = count(lambda: vae.decode(latents))
    return Counts(forward, train, backpropagate, encode, decode)


def stage_operations(settings: "Settings", images: int, counts: Counts) -> dict[str, float]:
    """Return the operations of each stage of `train_gesture` for `images` training images and a champion."""
    stage2, stage3, generation = settings.stage2, settings.stage3, settings.generation
    again = counts.forward if settings.compute.gradient_checkpointing else 0.0
    step = (counts.train if stage3.training_mode == "full" else counts.backpropagate) + again
    guided, evaluation = generation.autoguidance_scale > 1, settings.evaluation
    # Classifier-free guidance predicts twice; autoguidance adds the UNet before Stage III.
    plain = 2 * generation.num_inference_steps * counts.forward + counts.decode
    tuned = plain + guided * generation.num_inference_steps * counts.forward
    drawn = generation.num_images + evaluation.general_images + evaluation.other_gesture_images
    prior = stage3.prior.batch_size if stage3.prior.images else 0
    return {
        "encoding of the images": images * counts.encode,
        "Stage II, fusion": stage2.fusion_steps * stage2.fusion_batch_size * (counts.backpropagate + again),
        "Stage II, embeddings": images * stage2.embedding_steps * (counts.backpropagate + again),
        "Stage III": stage3.steps * (stage3.batch_size + prior) * step + stage3.prior.images * plain,
        "images of base, champion and tuned model": drawn * (plain + 2 * tuned)
        + guided * evaluation.export_images * plain,
    }


def read_utilization(path: Path, mode: str) -> dict[str, float]:
    """Return the largest utilization that was measured of each stage at Stable Diffusion 1.5's size.

    Args:
        path: `gpu.json`.
        mode: Training mode of Stage III, `full` or `lora`.

    Raises:
        ValueError: The file is not one of `benchmarks.gpu`, or has none of the stages.
    """
    stage3 = {"full": "III, all weights", "lora": "III, LoRA"}[mode]
    best: dict[str, float] = {}
    for row in json.loads(path.read_text()):
        for stage, name in _MEASURED_AS.items():
            name = stage3 if stage == "Stage III" else name
            is_ours = row["code"].startswith("hand1000") and row["backbone"].startswith("SD 1.5")
            if is_ours and row["stage"].startswith(name):
                best[stage] = max(best.get(stage, 0.0), row["mfu"])
    if not best:
        raise ValueError(f"{path}: no stage of hand1000; give the gpu.json of `python -m benchmarks.gpu --out FOLDER`")
    return best


def format_tables(
    settings: "Settings", images: int, utilization: Mapping[str, float], gpus: dict[str, dict[str, float]]
) -> str:
    """Return the table of the stages and that of the GPUs as Markdown.

    `utilization` has the share of the peak by stage; of the others it is that of the key "".
    """
    stages = stage_operations(settings, images, count_operations())
    total, precision = sum(stages.values()), settings.compute.precision
    shares = {name: utilization.get(name, utilization[""]) for name in stages}
    lines = ["| stage | PFLOP | share | of the peak |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {name} | {value / 1e15:.1f} | {value / total:.0%} | {shares[name]:.0%} |" for name, value in stages.items()
    ]
    lines += [f"| all | {total / 1e15:.1f} | 100% | |", "", f"{precision}:", ""]
    lines += ["| GPU | peak, TFLOP/s | dollars an hour | hours a gesture | dollars a gesture |", "| --- " * 5 + "|"]
    for name, gpu in gpus.items():
        peak = gpu.get(precision, gpu["bf16"])
        hours = sum(value / shares[stage] for stage, value in stages.items()) / (peak * 1e12) / 3600
        lines.append(f"| {name} | {peak:g} | {gpu['dollars']:.2f} | {hours:.2f} | {hours * gpu['dollars']:.2f} |")
    return "\n".join(lines)


def _parse_gpu(text: str) -> tuple[str, dict[str, float]]:
    name, _, numbers = text.partition("=")
    try:
        peak, dollars = map(float, numbers.split(":"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: give NAME=TFLOPS:PRICE, such as L40S=91:1.9") from None
    return name, {"fp32": peak, "bf16": peak, "dollars": dollars}


def main() -> None:
    """Print both tables for the given settings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", default="default", help="a preset or a settings file")
    parser.add_argument("--images", type=int, default=1000, help="number of training images")
    parser.add_argument("--utilization", type=float, default=DEFAULT_UTILIZATION, help="share of the peak, 0 to 1")
    parser.add_argument("--measured", type=Path, metavar="FILE", help="gpu.json with the utilization of each stage")
    parser.add_argument("--gpu", type=_parse_gpu, action="append", metavar="NAME=TFLOPS:PRICE")
    options = parser.parse_args()

    from hand1000.config.settings import load_settings

    gpus = dict(options.gpu) if options.gpu else GPUS
    settings, utilization = load_settings(options.settings), {"": options.utilization}
    if options.measured:
        if settings.compute.precision != "bf16":
            parser.error("--measured holds for bf16, but the settings compute in fp32; set compute.precision: bf16")
        utilization |= read_utilization(options.measured, settings.stage3.training_mode)
    print(format_tables(settings, options.images, utilization, gpus))


if __name__ == "__main__":
    main()
