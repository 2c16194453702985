"""The batches of Stage III."""

from typing import Literal

import pytest
import torch

from hand1000.models.conditioning import Conditioning
from hand1000.models.fusion import fused_null_embedding, gesture_indices
from hand1000.training.batches import BatchSampler, TrainingSet, sample_ahead, sample_logit_normal_timesteps
from tests.support.mixed_dataset import GESTURES, mixed_dataset
from tests.support.tiny_models import tiny_base
from tests.support.tiny_pipelines import fusion_of


def make_sampler(
    data: TrainingSet, *, timestep_sampling: Literal["uniform", "logit_normal"] = "uniform", caption_dropout: float = 0
) -> BatchSampler:
    return BatchSampler(
        data, 4, tiny_base().schedule, 0, "unet", timestep_sampling=timestep_sampling, caption_dropout=caption_dropout
    )


def test_dropped_caption_is_the_null_embedding_of_its_gesture() -> None:
    fusion = fusion_of("four", "ok", strong=True)
    empty = fused_null_embedding(mixed_dataset().empty_embedding, fusion, 0.3)
    for index, gesture in enumerate(("four", "ok")):
        alone = fused_null_embedding(mixed_dataset().empty_embedding, fusion_of(gesture, strong=True), 0.3)
        assert torch.allclose(empty[index], alone[0], atol=1e-5)
    gesture_ids = gesture_indices(fusion, GESTURES)
    latents = torch.arange(len(GESTURES)).reshape(-1, 1, 1, 1).float()
    training_set = TrainingSet(latents, mixed_dataset().conditioning, Conditioning(empty), gesture_ids)
    for dropout in (1.0, 0.0):
        batch = make_sampler(training_set, caption_dropout=dropout).sample(0)
        images = batch.latents.flatten().long()
        expected = empty[gesture_ids[images]] if dropout else mixed_dataset().text_embeddings[images]
        assert torch.equal(batch.conditioning.tokens, expected)


def test_noise_and_timesteps_are_keyed_by_step_and_position() -> None:
    text, null = Conditioning(torch.zeros(6, 1, 3)), Conditioning(torch.zeros(1, 1, 3))
    data = TrainingSet(torch.zeros(6, 4, 2, 2), text, null, torch.zeros(6).long())
    sampler = make_sampler(data)
    noise = torch.cat([sampler.sample(step).noise for step in range(2)]).flatten(1)
    assert len(noise.unique(dim=0)) == 2 * 4
    assert torch.equal(sampler.sample(1).noise.flatten(1), noise[4:])
    timesteps = make_sampler(data, timestep_sampling="logit_normal").sample(1).timesteps
    assert torch.equal(timesteps, sample_logit_normal_timesteps(4, 1000, 0, "unet", 1))


def test_batches_sampled_ahead_are_those_of_the_steps() -> None:
    for in_thread in (False, True):
        assert list(sample_ahead(lambda step: 10 * step, range(2, 5), in_thread=in_thread)) == [20, 30, 40]

    def fail(step: int) -> int:
        if step == 1:
            raise ValueError("step 1")
        return step

    batches = sample_ahead(fail, range(3), in_thread=True)
    assert next(batches) == 0
    with pytest.raises(ValueError, match="step 1"):
        next(batches)
