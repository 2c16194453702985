"""The batches of Stage III."""

import torch

from hand1000.models.fusion import fused_null_embedding, gesture_indices
from hand1000.training.batches import BatchSampler, TrainingSet
from tests.support.mixed_dataset import GESTURES, mixed_dataset
from tests.support.tiny_models import tiny_base
from tests.support.tiny_pipelines import fusion_of


def test_a_dropped_caption_is_the_gestures_null_embedding() -> None:
    fusion = fusion_of("four", "ok", strong=True)
    empty = fused_null_embedding(mixed_dataset().empty_embedding, fusion, 0.3)
    for index, gesture in enumerate(("four", "ok")):
        alone = fused_null_embedding(mixed_dataset().empty_embedding, fusion_of(gesture, strong=True), 0.3)
        assert torch.allclose(empty[index], alone[0], atol=1e-5)
    gesture_ids = gesture_indices(fusion, GESTURES)
    latents = torch.arange(len(GESTURES)).reshape(-1, 1, 1, 1).float()
    training_set = TrainingSet(latents, mixed_dataset().text_embeddings, empty, gesture_ids)
    for dropout in (1.0, 0.0):
        sampler = BatchSampler(
            training_set,
            4,
            tiny_base().scheduler,
            seed=0,
            stage="unet",
            timestep_sampling="uniform",
            caption_dropout=dropout,
        )
        batch = sampler.sample(0)
        images = batch.latents.flatten().long()
        expected = empty[gesture_ids[images]] if dropout else mixed_dataset().text_embeddings[images]
        assert torch.equal(batch.encoder_hidden_states, expected)
