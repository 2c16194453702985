"""Imagic as a system: each of its steps does what the paper says, and a picture depends on its order alone."""

from collections.abc import Iterable, Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from hand1000.baselines import imagic
from hand1000.baselines.imagic import imagic_generator
from hand1000.config.comparison import ImagicSettings
from hand1000.pipelines.generation import GenerationRequest, ImageGenerator, pipeline_generator
from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline, build_pipeline
from hand1000.training.context import TrainContext
from tests.support.tiny_models import TEXTS, fresh_base

CONTEXT = TrainContext(seed=7)
DRAWING = {"mu": 1.0, "guidance_scale": 1.0, "autoguidance_scale": 1.0, "eta": 0.0, "num_inference_steps": 3}
SETTINGS = ImagicSettings(
    embedding_steps=3,
    embedding_learning_rate=1e-2,
    unet_steps=3,
    unet_learning_rate=1e-3,
    target_weight=0.8,
    guidance_scale=3.0,
    eta=0.0,
    num_inference_steps=3,
)
ORDERS = [GenerationRequest(f"{index}.png", TEXTS[index % 2], index, "four") for index in range(3)]


def editing(**changes: float) -> tuple[ImageGenerator, ImageGenerator, Hand1000Pipeline]:
    """What draws, what edits that, and the pipeline of both."""
    pipeline = build_pipeline(fresh_base(), **DRAWING)
    system = pipeline_generator(pipeline)
    edited = imagic_generator(system, pipeline, SETTINGS.model_copy(update=changes), CONTEXT)
    return system, edited, pipeline


def pixels(images: Iterable[Image.Image]) -> np.ndarray:
    """Of all pictures, as whole numbers."""
    return np.stack([np.asarray(image) for image in images]).astype(int)


def test_a_picture_depends_on_its_order_alone() -> None:
    drawn, edited, pipeline = editing()
    before = {name: value.clone() for name, value in pipeline.unet.state_dict().items()}
    together = pixels(edited(ORDERS))
    assert all(torch.equal(value, before[name]) for name, value in pipeline.unet.state_dict().items())
    # Batched kernels round otherwise, which may tip a level.
    alone = np.concatenate([pixels(edited([order])) for order in reversed(ORDERS)])[::-1]
    assert np.abs(together - alone).max() <= 1
    assert np.abs(together - pixels(drawn(ORDERS))).max() > 1


def test_without_any_step_it_draws_the_picture_again() -> None:
    drawn, edited, _ = editing(embedding_steps=0, unet_steps=0, guidance_scale=1.0)
    assert np.abs(pixels(edited(ORDERS)) - pixels(drawn(ORDERS))).max() <= 1


def test_the_steps_are_the_papers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedding moves through a UNet at rest, then the UNet with the embedding at rest, to a lower loss."""
    seen: dict[str, list] = {"start": [], "optimised": [], "tune": [], "conditions": []}
    refine, tune, call = imagic.optimize_embeddings, imagic.finetune_on_image, Hand1000Pipeline.__call__

    def refined(base, latents, start, *arguments, **settings):
        assert not any(parameter.requires_grad for parameter in base.unet.parameters())
        result, losses = refine(base, latents, start, *arguments, **settings)
        seen["start"].append(start)
        seen["optimised"].append(result)
        return result, losses

    def tuned(base, latents, embeddings, *arguments, **settings):
        assert torch.equal(embeddings, seen["optimised"][-1])
        seen["tune"].append(tune(base, latents, embeddings, *arguments, **settings))
        assert torch.equal(embeddings, seen["optimised"][-1])

    def drawn(self, *arguments, **settings):
        if "prompt_embeds" in settings:
            seen["conditions"].append(settings["prompt_embeds"])
        return call(self, *arguments, **settings)

    monkeypatch.setattr(imagic, "optimize_embeddings", refined)
    monkeypatch.setattr(imagic, "finetune_on_image", tuned)
    monkeypatch.setattr(Hand1000Pipeline, "__call__", drawn)
    # The same draws with a rate that leaves the UNet as it is.
    for rate in (1e-12, 1e-3):
        _, edited, pipeline = editing(embedding_steps=5, unet_steps=30, unet_learning_rate=rate)
        list(edited(ORDERS[:1]))
    start, optimised = seen["start"][-1], seen["optimised"][-1]
    assert torch.equal(start, pipeline.encode_prompt(TEXTS[:1], 1.0, torch.zeros(1)))
    assert (optimised - start).abs().max() > 1e-2
    assert torch.allclose(seen["conditions"][-1], 0.8 * start + 0.2 * optimised, atol=1e-6)
    still, tuned_losses = (np.mean(losses[10:]) for losses in seen["tune"])
    assert tuned_losses < still - 1e-3


def test_the_pictures_under_it_may_be_any_systems() -> None:
    def grey(orders: Sequence[GenerationRequest]) -> list[Image.Image]:
        return [Image.new("RGB", (32, 32), "grey") for _ in orders]

    pipeline = build_pipeline(fresh_base(), **DRAWING)
    edited = imagic_generator(grey, pipeline, SETTINGS, CONTEXT)
    assert pixels(edited(ORDERS[:1])).shape == (1, 32, 32, 3)
