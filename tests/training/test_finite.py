"""Losses, gradients and weights that are not finite: what fp16 skips is counted, anything else stops the run."""

import json

import pytest
import torch

from hand1000.config.pretraining import TrainingSchedule
from hand1000.core.errors import Hand1000Error
from hand1000.models.conditioning import Conditioning
from hand1000.training import cuda_graphs, stage3
from hand1000.training.context import TrainContext
from hand1000.training.finite import MAX_SKIPPED_IN_A_ROW, LossScaler, all_finite, finite_metrics
from hand1000.training.loop import train_with_ema
from hand1000.training.stage2 import optimize_all_embeddings, train_fusion
from hand1000.training.stage3 import Stage3Trainer
from tests.support.stage3_process import settings_with, training_set
from tests.support.tiny_models import (
    LATENT,
    TOKENS,
    WIDTH,
    CrashingCheckpointStore,
    encoded_dataset,
    fresh_base,
    tiny_base,
)

FP16 = settings_with({}, {"precision": "fp16"}).compute
FP32 = settings_with({}, {}).compute
STAGE2 = settings_with({}, {}).stage2.model_copy(
    update={
        "fusion_steps": 6,
        "fusion_batch_size": 2,
        "embedding_steps": 4,
        "embedding_batch_size": 3,
        "checkpoint_every": 2,
    }
)
INFINITE = float("inf")


@pytest.fixture
def overflow(monkeypatch: pytest.MonkeyPatch):
    """Multiplies the losses of the named calls, counted from 1, by a factor."""

    def install(module, calls: set[int], factor: float = INFINITE) -> None:
        count, compute_loss = 0, module.diffusion_loss

        def diffusion_loss(*args, **kwargs):
            nonlocal count
            count += 1
            loss = compute_loss(*args, **kwargs)
            return loss * factor if count in calls else loss

        monkeypatch.setattr(module, "diffusion_loss", diffusion_loss)

    return install


def train(checkpoint: CrashingCheckpointStore, compute=FP32, **changes):
    settings = settings_with(changes, {}).stage3
    context = TrainContext(seed=0, compute=compute, checkpoint=checkpoint)
    return Stage3Trainer(fresh_base(), training_set(), settings, context).train()


def test_skipped_steps_of_fp16_are_counted(overflow, tmp_path) -> None:
    overflow(stage3, {2, 4})
    weights, history = train(CrashingCheckpointStore(tmp_path / "checkpoint"), FP16)
    assert all_finite(weights.values()) and [row["step"] for row in history] == [1, 2, 3, 4, 5, 6]
    assert [row.get("skipped_steps") for row in history] == [None, 1, None, 2, None, None]
    assert [set(row) for row in history[:2]] == [{"step", "loss", "grad_norm"}, {"step", "skipped_steps"}]
    json.dumps(history, allow_nan=False)
    # The count is part of the checkpoint of step 4.
    context = TrainContext(seed=0, compute=FP16, checkpoint=CrashingCheckpointStore(tmp_path / "checkpoint"))
    trainer = Stage3Trainer(fresh_base(), training_set(), settings_with({}, {}).stage3, context)
    trainer.load_checkpoint()
    assert (trainer.global_step, trainer.scaler.skipped) == (4, 2)


def test_a_weight_that_is_not_finite_stops_at_once(overflow, tmp_path) -> None:
    whole, _ = train(CrashingCheckpointStore(tmp_path / "whole"))
    overflow(stage3, {4}, float("nan"))
    store = CrashingCheckpointStore(tmp_path / "checkpoint")
    with pytest.raises(
        Hand1000Error,
        match=r"step 4: the gradient is infinite or NaN \(images \d, \d, \d, \d\); .* checkpoint of step 2;",
    ):
        train(store)
    # Only the fourth loss of this process was not finite: the retry, whose first step is the third, ends well.
    again, history = train(store)
    assert len(history) == 6 and all(torch.equal(again[name], whole[name]) for name in whole)


def test_weights_are_checked_besides_gradients() -> None:
    settings = settings_with({"learning_rate": 1e-3}, {}).stage3
    trainer = Stage3Trainer(fresh_base(), training_set(), settings, TrainContext(seed=0))
    trainer.optimizer.param_groups[0]["weight_decay"] = -1e42
    with pytest.raises(Hand1000Error, match=r"step 1: a weight is infinite or NaN .* from the beginning"):
        trainer.train_step(trainer.sample_batch(0))
    assert trainer.history == []


def test_fp16_without_end_of_overflows_stops(overflow, tmp_path) -> None:
    overflow(stage3, set(range(1, 100)))
    with pytest.raises(Hand1000Error, match=f"step {MAX_SKIPPED_IN_A_ROW + 1}: the gradient is infinite"):
        train(CrashingCheckpointStore(tmp_path / "checkpoint"), FP16, steps=99)


def fuse(compute, store: CrashingCheckpointStore):
    generator = torch.Generator().manual_seed(3)
    data = encoded_dataset(
        torch.randn(4, 4, LATENT, LATENT, generator=generator), torch.randn(4, TOKENS, WIDTH, generator=generator)
    )
    features = {"four": torch.randn(63, generator=generator)}
    context = TrainContext(seed=0, compute=compute, checkpoint=store)
    return train_fusion(fresh_base(), data, features, STAGE2, context)


def test_one_overflow_does_not_ruin_the_fusion(overflow, tmp_path) -> None:
    overflow(cuda_graphs, {3})
    fusion, history = fuse(FP16, CrashingCheckpointStore(tmp_path / "fp16"))
    assert all_finite(fusion.parameters())
    assert [row.get("skipped_steps") for row in history] == [None, None, 1, None, None, None] and "loss" not in history[
        2
    ]
    overflow(cuda_graphs, {3})
    with pytest.raises(Hand1000Error, match=r"step 3: the gradient .* \(images \d\.png, \d\.png\); .* of step 2;"):
        fuse(FP32, CrashingCheckpointStore(tmp_path / "fp32"))


def test_overflows_of_embeddings_are_skipped_or_named(overflow) -> None:
    latents, start = torch.randn(3, 4, LATENT, LATENT), Conditioning(torch.randn(3, TOKENS, WIDTH))
    arguments = (tiny_base(), latents, start, ["a.png", "b.png", "c.png"], STAGE2)
    overflow(cuda_graphs, {4})
    with pytest.raises(Hand1000Error, match=r"step 4: an embedding is infinite or NaN \(images a.png, b.png, c.png\)"):
        optimize_all_embeddings(*arguments, TrainContext(seed=0, compute=FP32))
    overflow(cuda_graphs, {4})
    arguments = (fresh_base(), *arguments[1:])
    embeddings, history = optimize_all_embeddings(*arguments, TrainContext(seed=0, compute=FP16))
    assert all_finite([embeddings]) and set(history[0]) == {"step", "loss_first"}


def test_the_scaler_changes_no_bit_in_full_precision(monkeypatch, tmp_path) -> None:
    fused, _ = fuse(FP32, CrashingCheckpointStore(tmp_path / "a"))
    monkeypatch.setattr(LossScaler, "scale", lambda self, loss: loss)
    monkeypatch.setattr(LossScaler, "step", lambda self, optimizer, *_: optimizer.step())
    plain, _ = fuse(FP32, CrashingCheckpointStore(tmp_path / "b"))
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in fused.state_dict().items())


def test_training_from_scratch_stops_at_once() -> None:
    module = torch.nn.Linear(2, 1)
    schedule = TrainingSchedule(
        steps=9, batch_size=1, learning_rate=1e-3, warmup_steps=1, ema_decay=0.9, checkpoint_every=50
    )

    def loss_at(step: int) -> torch.Tensor:
        return module(torch.ones(1, 2)).sum() * (float("nan") if step == 4 else 1)

    with pytest.raises(
        Hand1000Error,
        match=r"step 5: the loss or a weight is infinite or NaN \(images #4, #40\); .* from the beginning",
    ):
        train_with_ema(module, schedule, loss_at, lambda step: [step, 10 * step], TrainContext(seed=0))


def test_finiteness_of_tensors_and_metrics() -> None:
    for value in (float("nan"), INFINITE, -INFINITE):
        assert not all_finite([torch.ones(3), torch.tensor([1.0, value])])
    assert all_finite([torch.tensor([3e38, -3e38])]) and all_finite([])
    assert finite_metrics({"loss": INFINITE, "norm": 1.0, "other": float("nan")}) == {"norm": 1.0}


@pytest.mark.parametrize("norm", [0.5, 0.98, 0.9899999, 0.99, 1.0 - 1e-6, 1.0, 1.0 + 1e-6, 3.0])
@pytest.mark.parametrize("max_norm", [1.0, 1e-6])
def test_clipping_gives_the_bits_of_pytorch(norm: float, max_norm: float) -> None:
    gradient = torch.randn(100, generator=torch.Generator().manual_seed(0))
    gradient *= norm * max_norm / gradient.norm()
    ours, expected = (torch.nn.Parameter(torch.zeros(100)) for _ in range(2))
    for parameter in (ours, expected):
        parameter.grad = gradient.clone()
    expected_norm = torch.nn.utils.clip_grad_norm_([expected], max_norm)
    torch.optim.SGD([expected], lr=1.0).step()
    returned = LossScaler(torch.device("cpu"), FP32).step(torch.optim.SGD([ours], lr=1.0), [ours], max_norm)
    assert returned == expected_norm.item() and torch.equal(ours, expected)
