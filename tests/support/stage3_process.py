"""One of several processes that train a tiny UNet together; `python -m tests.support.stage3_process FOLDER`."""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from hand1000.config.settings import Settings, load_settings
from hand1000.training.batches import TrainingSet
from hand1000.training.context import TrainContext
from hand1000.training.distributed import init_distributed
from hand1000.training.stage3 import train_unet
from tests.support.tiny_models import LATENT, TOKENS, WIDTH, DyingCheckpoint, fresh_base

IMAGES = 5
QUICK = {
    "steps": 6,
    "batch_size": 4,
    "micro_batch_size": 4,
    "learning_rate": 1e-3,
    "warmup_steps": 2,
    "checkpoint_every": 2,
}


def settings_with(stage3: dict, compute: dict) -> Settings:
    """The preset `default`, quick, with these changes."""
    values = load_settings("default").model_dump()
    values["stage3"] |= QUICK | stage3
    values["compute"] |= compute
    return Settings.model_validate(values)


def examples() -> TrainingSet:
    """Images as latents, and conditions."""
    generator = torch.Generator().manual_seed(1)
    return TrainingSet(
        torch.randn(IMAGES, 4, LATENT, LATENT, generator=generator),
        torch.randn(IMAGES, TOKENS, WIDTH, generator=generator),
        torch.zeros(IMAGES, dtype=torch.long),
        torch.rand(IMAGES, 4, generator=generator),
    )


def main(folder: Path) -> None:
    """Train with whoever else was started; the first writes what came of it."""
    settings = settings_with({}, {})
    folder.mkdir(exist_ok=True)
    with init_distributed() as processes:
        weights, history = train_unet(
            fresh_base(),
            examples(),
            examples().embeddings[:1],
            settings.stage3,
            TrainContext(seed=0, compute=settings.compute, checkpoint=DyingCheckpoint(folder / "checkpoint")),
            processes=processes,
        )
    if processes.leads:
        save_file(weights, folder / "weights.safetensors")
        (folder / "history.json").write_text(json.dumps(history))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
