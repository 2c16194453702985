"""One of several processes that train a tiny UNet together; `python -m tests.support.stage3_process FOLDER`."""

import json
import sys
import weakref
from pathlib import Path

import torch
from safetensors.torch import save_file

from hand1000.config.settings import Settings, load_settings
from hand1000.models.conditioning import Conditioning
from hand1000.training.batches import TrainingSet
from hand1000.training.context import TrainContext
from hand1000.training.distributed import init_distributed
from hand1000.training.stage3 import Stage3Trainer
from tests.support.tiny_models import LATENT, TOKENS, WIDTH, CrashingCheckpointStore, fresh_base

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


def training_set() -> TrainingSet:
    """Random latents and embeddings of one gesture; the first embedding is also that of the empty prompt."""
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(IMAGES, 4, LATENT, LATENT, generator=generator)
    embeddings = torch.randn(IMAGES, TOKENS, WIDTH, generator=generator)
    text = Conditioning(embeddings)
    return TrainingSet(latents, text, text[:1], gesture_ids=torch.zeros(IMAGES, dtype=torch.long))


def main(folder: Path) -> None:
    """Train together with the other processes; the main process writes the result."""
    settings = settings_with({}, {})
    folder.mkdir(exist_ok=True)
    context = TrainContext(seed=0, checkpoint=CrashingCheckpointStore(folder / "checkpoint"))
    with init_distributed() as distributed:
        trainer = Stage3Trainer(fresh_base(), training_set(), settings.stage3, context, distributed=distributed)
        wrapper = weakref.ref(trainer.model)
        weights, history = trainer.train()
        # Else the process may wait for itself when it ends (torch 2.13, ProcessGroupGloo's destructor under the GIL).
        assert trainer.model is trainer.denoiser and wrapper() is None
    if distributed.is_main_process:
        save_file(weights, folder / "weights.safetensors")
        (folder / "history.json").write_text(json.dumps(history))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
