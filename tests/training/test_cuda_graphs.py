"""Recorded steps: what a recording overwrites or cannot take must not reach a result.

There is no GPU here. The recording of these tests computes again on the CPU and writes into the same places, as the
replay of a CUDA graph does.
"""

import logging

import pytest
import torch

from hand1000.models.conditioning import Conditioning
from hand1000.training import cuda_graphs, stage3
from hand1000.training.context import TrainContext
from hand1000.training.cuda_graphs import RecordedFunction, Recording, TokenLosses, may_record
from hand1000.training.stage2 import optimize_all_embeddings, train_fusion
from hand1000.training.stage3 import Stage3Trainer
from tests.support.stage3_process import settings_with, training_set
from tests.support.tiny_models import LATENT, TOKENS, WIDTH, encoded_dataset, fresh_base, tiny_base

PLAIN = settings_with({}, {"cuda_graphs": False}).compute
RECORDED = settings_with({}, {"cuda_graphs": True}).compute
FEATURES = {"four": torch.ones(63)}


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Replace the recording; the list counts the recordings and the replays."""
    counts = [0, 0]

    def record(compute) -> Recording:
        results = compute()
        (recorder,) = [
            cell.cell_contents for cell in compute.__closure__ if isinstance(cell.cell_contents, RecordedFunction)
        ]
        gradients = [parameter.grad for parameter in recorder._parameters]
        counts[0] += 1

        def replay() -> None:
            counts[1] += 1
            for result, tensor in zip(results, compute(), strict=True):
                result.copy_(tensor)
            for parameter, gradient in zip(recorder._parameters, gradients, strict=True):
                gradient.copy_(parameter.grad)

        return Recording(results, replay)

    monkeypatch.setattr(cuda_graphs, "record", record)
    for module in ("cuda_graphs", "stage3"):
        monkeypatch.setattr(f"hand1000.training.{module}.may_record", lambda compute, device: compute.cuda_graphs)
    return counts


@pytest.mark.parametrize("changes", [{}, {"micro_batch_size": 2}, {"training_mode": "lora", "ema_decay": 0.9}])
def test_stage3_has_the_bits_of_a_plain_training(replays, changes: dict) -> None:
    settings = settings_with({"batch_size": 3, "steps": 4} | changes, {}).stage3

    def train(compute) -> tuple[dict, list[dict]]:
        return Stage3Trainer(fresh_base(), training_set(), settings, TrainContext(seed=0, compute=compute)).train()

    weights, history = train(RECORDED)
    expected, expected_history = train(PLAIN)
    assert history == expected_history and replays == [1, 1 + 4]
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_stage2_has_the_values_of_a_plain_training(replays) -> None:
    settings = settings_with({}, {}).stage2.model_copy(
        update={"fusion_steps": 3, "fusion_batch_size": 2, "embedding_steps": 3, "embedding_batch_size": 2}
    )
    generator = torch.Generator().manual_seed(2)
    latents = torch.randn(5, 4, LATENT, LATENT, generator=generator)
    tokens = torch.randn(5, TOKENS, WIDTH, generator=generator)
    data = encoded_dataset(latents, tokens)
    results = []
    for compute in (RECORDED, PLAIN):
        context = TrainContext(seed=0, compute=compute)
        fusion, _ = train_fusion(fresh_base(), data, FEATURES, settings, context)
        keys = [str(number) for number in range(5)]
        embeddings, _ = optimize_all_embeddings(fresh_base(), latents, Conditioning(tokens), keys, settings, context)
        results.append((fusion.linear.weight, embeddings))
    # Two full batches of images are replayed, and the fifth image is computed without the recording. Each of the two
    # recordings is replayed once more, to check it.
    assert replays == [2, 2 + 3 + 2 * 3]
    for recorded, plain in zip(*results, strict=True):
        torch.testing.assert_close(recorded, plain, rtol=1e-5, atol=1e-6)
    assert not torch.equal(results[0][1], tokens)


def test_what_cannot_be_recorded_is_computed(monkeypatch, caplog) -> None:
    def refuse(compute) -> Recording:
        compute()
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(cuda_graphs, "record", refuse)
    monkeypatch.setattr("hand1000.training.stage3.may_record", lambda compute, device: compute.cuda_graphs)
    settings = settings_with({"batch_size": 3, "micro_batch_size": 2, "steps": 2}, {}).stage3
    results = []
    with caplog.at_level(logging.WARNING):
        for compute in (RECORDED, PLAIN):
            context = TrainContext(seed=0, compute=compute)
            results.append(Stage3Trainer(fresh_base(), training_set(), settings, context).train())
    assert results[0][1] == results[1][1]
    assert [message for message in caplog.messages if "nothing is recorded (operation not permitted" in message]


def test_a_recording_with_other_results_is_not_used(monkeypatch, caplog) -> None:
    def record(compute) -> Recording:
        (result,) = compute()
        return Recording((result,), lambda: result.mul_(2))

    monkeypatch.setattr(cuda_graphs, "record", record)
    batch = Stage3Trainer(
        fresh_base(), training_set(), settings_with({}, {}).stage3, TrainContext(seed=0)
    ).sample_batch(0)
    recorded = RecordedFunction(lambda batch: (batch.latents.sum(),), enabled=True)
    assert recorded(batch)[0] == batch.latents.sum()
    assert caplog.messages == [
        "compute.cuda_graphs: nothing is recorded (a replay gives other results than the recorded step)"
    ]


def test_only_a_gpu_records_and_not_in_fp16() -> None:
    gpu = torch.device("cuda")
    assert may_record(RECORDED, gpu)
    assert not may_record(PLAIN, gpu)
    assert not may_record(RECORDED, torch.device("cpu"))
    assert not may_record(RECORDED.model_copy(update={"precision": "fp16"}), gpu)
    assert TokenLosses(tiny_base(), RECORDED)._recorded.enabled is False


@pytest.mark.parametrize("compute", [PLAIN, RECORDED])
def test_micro_batches_that_do_not_fit_are_halved(replays, monkeypatch, caplog, compute) -> None:
    compute_loss = stage3.diffusion_loss

    def diffusion_loss(base, batch, *args, **kwargs):
        if len(batch.latents) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return compute_loss(base, batch, *args, **kwargs)

    settings = settings_with({"steps": 2}, {}).stage3
    expected, _ = Stage3Trainer(
        fresh_base(), training_set(), settings.model_copy(update={"micro_batch_size": 1}), TrainContext(seed=0)
    ).train()
    monkeypatch.setattr(stage3, "diffusion_loss", diffusion_loss)
    trainer = Stage3Trainer(fresh_base(), training_set(), settings, TrainContext(seed=0, compute=compute))
    weights, _ = trainer.train()
    assert trainer.micro_batch_size == 1 and len(caplog.messages) == 2
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
