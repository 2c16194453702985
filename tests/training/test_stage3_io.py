"""The trainer that Stage III builds from the earlier stages."""

from pathlib import Path

import torch

from hand1000.config.settings import Settings
from hand1000.models.fusion import double_fusion, fused_null_embedding, gesture_indices
from hand1000.training.context import TrainContext
from hand1000.training.prior import Prior
from hand1000.training.stage3_io import Stage3Inputs, setup_stage3
from tests.support.mixed_dataset import GESTURES, mixed_dataset
from tests.support.stage3_process import settings_with
from tests.support.tiny_models import LATENT, TOKENS, WIDTH, fresh_base
from tests.support.tiny_pipelines import fusion_of


def mixed_settings() -> Settings:
    values = settings_with({"validation": {"images": 1, "every": 2, "images_drawn": 1, "patience": 0}}, {}).model_dump()
    values["stage3"]["prior"] |= {"images": 6}
    return Settings.model_validate(values)


def test_stage3_trains_each_image_with_its_own_gesture(tmp_path: Path) -> None:
    """The data of the trainer; test_stage3.py tests the training itself."""
    fusion, settings, prepared = fusion_of("four", "ok", strong=True), mixed_settings(), mixed_dataset()
    generator = torch.Generator().manual_seed(5)
    prior = Prior(
        torch.randn(6, 4, LATENT, LATENT, generator=generator), torch.randn(6, TOKENS, WIDTH, generator=generator)
    )
    refined = torch.randn(len(GESTURES), TOKENS, WIDTH, generator=generator)
    context = TrainContext(seed=settings.seed, compute=settings.compute)
    inputs = Stage3Inputs(prepared, fusion, refined, prior)
    trainer = setup_stage3(fresh_base(), inputs, settings, context, tmp_path)
    (images, prior_images), validation = [sampler.data for sampler, _ in trainer.samplers], trainer.validation

    weight = settings.stage2.lambda_
    expected = fused_null_embedding(prepared.empty_embedding, fusion, weight)
    assert all(torch.equal(data.null_conditioning.tokens, expected) for data in (images, prior_images))
    known = gesture_indices(fusion, GESTURES)
    assert len(images.latents) == len(GESTURES) - 1
    embeddings = images.conditioning.tokens
    for latents, embedding, gesture_id in zip(images.latents, embeddings, images.gesture_ids, strict=True):
        (image,) = [index for index in range(len(GESTURES)) if torch.equal(prepared.latents[index], latents)]
        assert gesture_id == known[image] and torch.equal(embedding, refined[image])
    prior_ids = gesture_indices(
        fusion, [*GESTURES, *GESTURES[:2]]
    )  # The prior's captions are those of the images, in turn.
    assert torch.equal(prior_images.gesture_ids, prior_ids)
    expected = double_fusion(prior.text_embeddings, fusion, weight, prior_ids)
    assert torch.equal(prior_images.conditioning.tokens, expected)
    assert validation is not None
    (image,) = [index for index in range(len(GESTURES)) if torch.equal(prepared.latents[index], validation.latents[0])]
    expected = double_fusion(prepared.text_embeddings, fusion, weight, known)[image]
    assert torch.allclose(validation.conditioning.tokens[0], expected, atol=1e-5)
