"""A signal between two steps: every loop saves there, and continues to the bits of an undisturbed run."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hand1000.config.pretraining import TrainingSchedule
from hand1000.config.settings import load_settings
from hand1000.core.interruption import Interrupted, deferred_interruption, handle_signals
from hand1000.models.conditioning import Conditioning
from hand1000.paper.interleaved import train_interleaved
from hand1000.pipelines.generation import GenerationRequest, generate_to_dir, pipeline_generator
from hand1000.training.context import TrainContext
from hand1000.training.loop import train_with_ema
from hand1000.training.stage2 import optimize_all_embeddings, train_fusion
from hand1000.training.stage3 import Stage3Trainer
from tests.support.stage3_process import settings_with, training_set
from tests.support.tiny_models import LATENT, TEXTS, TOKENS, WIDTH, CrashingCheckpointStore, encoded_dataset, fresh_base
from tests.support.tiny_pipelines import pipeline_of

IMAGES = 4
SETTINGS = load_settings("default")
STAGE2 = SETTINGS.stage2.model_copy(
    update={"fusion_steps": 4, "embedding_steps": 2, "embedding_batch_size": 1, "checkpoint_every": 1000}
)
LATENTS = torch.randn(IMAGES, 4, LATENT, LATENT, generator=torch.Generator().manual_seed(0))
TEXT = torch.randn(IMAGES, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))


def fuse(context: TrainContext, folder: Path):
    feature = {"four": torch.linspace(-1, 1, 63)}
    fusion, history = train_fusion(fresh_base(), encoded_dataset(LATENTS, TEXT), feature, STAGE2, context)
    return fusion.state_dict(), history


def optimize(context: TrainContext, folder: Path):
    embeddings, history = optimize_all_embeddings(
        fresh_base(), LATENTS, Conditioning(TEXT), list("abcd"), STAGE2, context
    )
    return {"embeddings": embeddings}, history


def train(context: TrainContext, folder: Path):
    settings = settings_with({"steps": 4, "checkpoint_every": 1000}, {}).stage3
    return Stage3Trainer(fresh_base(), training_set(), settings, context).train()


def train_as_the_authors(context: TrainContext, folder: Path):
    stage3 = SETTINGS.stage3.model_copy(update={"steps": 2, "checkpoint_every": 1000})
    return train_interleaved(fresh_base(), LATENTS, TEXT, STAGE2, stage3, context)


def pretrain(context: TrainContext, folder: Path):
    torch.manual_seed(0)
    schedule = TrainingSchedule(
        steps=60, batch_size=1, learning_rate=1e-2, warmup_steps=2, ema_decay=0.9, checkpoint_every=1000
    )
    module, inputs = torch.nn.Linear(3, 1), torch.arange(180.0).reshape(60, 3) / 100
    module, history = train_with_ema(
        module, schedule, lambda step: module(inputs[step]).square().sum(), lambda step: [step], context
    )
    return module.state_dict(), history


def generate(context: TrainContext, folder: Path):
    requests = [GenerationRequest(f"{index}.png", TEXTS[index % 2], index, "four") for index in range(4)]
    folder.mkdir()
    generator = pipeline_generator(pipeline_of("four"))
    stores = {"checkpoint": context.checkpoint, "on_progress": context.on_progress}
    generate_to_dir(generator, requests, folder, batch_size=1, **stores)
    names = sorted(path.name for path in folder.iterdir())
    return {name: torch.tensor(list((folder / name).read_bytes())) for name in names}, []


@pytest.mark.parametrize("loop", [fuse, optimize, train, train_as_the_authors, pretrain, generate])
def test_an_interrupted_loop_continues_to_the_same_bits(loop: Callable, tmp_path: Path) -> None:
    whole, history = loop(TrainContext(seed=0), tmp_path / "whole")
    steps: list[int] = []

    def interrupt(done: int, total: int, metrics=None) -> None:
        steps.append(done)
        if len(steps) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    store = CrashingCheckpointStore(tmp_path / "state")
    with handle_signals(), pytest.raises(Interrupted), deferred_interruption():
        loop(TrainContext(seed=0, checkpoint=store, on_progress=interrupt), tmp_path / "cut")
    assert steps == [1, 2], "the loop did not stop after the step"
    again, rows = loop(
        TrainContext(seed=0, checkpoint=store, on_progress=lambda done, *_: steps.append(done)), tmp_path / "again"
    )
    assert steps[2] == 3, "the interrupted steps were lost"
    assert rows == history and whole.keys() == again.keys()
    assert all(torch.equal(value, again[name]) for name, value in whole.items())
