"""Imagic: its steps are the paper's, and an image depends on its own request alone."""

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
SAMPLER = {"mu": 1.0, "guidance_scale": 1.0, "autoguidance_scale": 1.0, "eta": 0.0, "num_inference_steps": 3}
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
REQUESTS = [GenerationRequest(f"{index}.png", TEXTS[index % 2], index, "four") for index in range(3)]


def build_imagic(**changes: float) -> tuple[ImageGenerator, ImageGenerator, Hand1000Pipeline]:
    """The source generator, Imagic on its images, and the pipeline of both."""
    pipeline = build_pipeline(fresh_base(), **SAMPLER)
    source = pipeline_generator(pipeline)
    return source, imagic_generator(source, pipeline, SETTINGS.model_copy(update=changes), CONTEXT), pipeline


def to_array(images: Iterable[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(image) for image in images]).astype(int)


def test_image_depends_on_its_own_request_alone() -> None:
    source, edit, pipeline = build_imagic()
    before = {name: value.clone() for name, value in pipeline.unet.state_dict().items()}
    together = to_array(edit(REQUESTS))
    assert all(torch.equal(value, before[name]) for name, value in pipeline.unet.state_dict().items())
    # Kernels of another batch size round differently, which may change a pixel by one level.
    alone = np.concatenate([to_array(edit([request])) for request in reversed(REQUESTS)])[::-1]
    assert np.abs(together - alone).max() <= 1
    assert np.abs(together - to_array(source(REQUESTS))).max() > 1


def test_zero_steps_reproduce_the_source_image() -> None:
    source, edit, _ = build_imagic(embedding_steps=0, unet_steps=0, guidance_scale=1.0)
    assert np.abs(to_array(edit(REQUESTS)) - to_array(source(REQUESTS))).max() <= 1


def test_steps_are_those_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedding is optimized with a frozen UNet, then the UNet with a frozen embedding, to a lower loss."""
    calls: dict[str, list] = {"start": [], "optimized": [], "losses": [], "prompt_embeds": []}
    optimize, finetune, call = imagic.optimize_embeddings, imagic.finetune_on_image, Hand1000Pipeline.__call__

    def spy_on_optimize(base, latents, start, *arguments, **settings):
        assert not any(parameter.requires_grad for parameter in base.unet.parameters())
        result, losses = optimize(base, latents, start, *arguments, **settings)
        calls["start"].append(start.tokens)
        calls["optimized"].append(result)
        return result, losses

    def spy_on_finetune(base, latents, embeddings, *arguments, **settings):
        assert torch.equal(embeddings.tokens, calls["optimized"][-1])
        calls["losses"].append(finetune(base, latents, embeddings, *arguments, **settings))
        assert torch.equal(embeddings.tokens, calls["optimized"][-1])

    def spy_on_call(self, *arguments, **settings):
        if "prompt_embeds" in settings:
            calls["prompt_embeds"].append(settings["prompt_embeds"])
        return call(self, *arguments, **settings)

    monkeypatch.setattr(imagic, "optimize_embeddings", spy_on_optimize)
    monkeypatch.setattr(imagic, "finetune_on_image", spy_on_finetune)
    monkeypatch.setattr(Hand1000Pipeline, "__call__", spy_on_call)
    # Both runs have the same noise; the first one's learning rate leaves the UNet as it is.
    for learning_rate in (1e-12, 1e-3):
        _, edit, pipeline = build_imagic(embedding_steps=5, unet_steps=30, unet_learning_rate=learning_rate)
        list(edit(REQUESTS[:1]))
    start, optimized = calls["start"][-1], calls["optimized"][-1]
    assert torch.equal(start, pipeline.encode_prompt(TEXTS[:1], 1.0, torch.zeros(1)).tokens)
    assert (optimized - start).abs().max() > 1e-2
    assert torch.allclose(calls["prompt_embeds"][-1], 0.8 * start + 0.2 * optimized, atol=1e-6)
    untrained, trained = (np.mean(losses[10:]) for losses in calls["losses"])
    assert trained < untrained - 1e-3


def test_source_may_be_any_generator() -> None:
    def gray_images(requests: Sequence[GenerationRequest]) -> list[Image.Image]:
        return [Image.new("RGB", (32, 32), "grey") for _ in requests]

    pipeline = build_pipeline(fresh_base(), **SAMPLER)
    edit = imagic_generator(gray_images, pipeline, SETTINGS, CONTEXT)
    assert to_array(edit(REQUESTS[:1])).shape == (1, 32, 32, 3)
