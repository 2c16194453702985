"""One model of several gestures: each image, each prompt and each measure goes by its own gesture."""

import dataclasses
from pathlib import Path

import pytest
import torch

from hand1000.config.settings import Settings, load_settings
from hand1000.core.errors import Hand1000Error
from hand1000.gestures import PHRASES, find_gesture_in_prompt, group_by_gesture, parse_gestures, slug
from hand1000.models.fusion import (
    GESTURE_SCALE,
    Fusion,
    GestureFusion,
    double_fusion,
    fused_null_embedding,
    gesture_indices,
    load_fusion,
)
from hand1000.pipelines.generation import GenerationRequest
from hand1000.training.batches import BatchSampler, TrainingSet
from hand1000.training.context import TrainContext
from hand1000.training.encoded_dataset import EncodedDataset
from hand1000.training.prior import Prior
from hand1000.training.stage2 import train_fusion
from hand1000.training.stage3_io import Stage3Inputs, setup_stage3
from tests.support.stage3_process import settings_with
from tests.support.tiny_models import LATENT, TOKENS, WIDTH, fresh_base, tiny_base

IMAGES = 4
SHOWN = ["four", "ok", "ok", "four"]
DRAWING = {"mu": 0.3, "guidance_scale": 3.0, "autoguidance_scale": 1.0, "eta": 0.5, "num_inference_steps": 3}
PROMPTS = [f"a red hand, {PHRASES[gesture]}" for gesture in ("ok", "four")]


def features(*gestures: str) -> dict[str, torch.Tensor]:
    """A feature of each gesture."""
    return {name: torch.randn(63, generator=torch.Generator().manual_seed(len(name))) for name in gestures}


def data() -> EncodedDataset:
    generator = torch.Generator().manual_seed(1)
    return EncodedDataset(
        latents=torch.randn(IMAGES, 4, LATENT, LATENT, generator=generator),
        text_embeddings=torch.randn(IMAGES, TOKENS, WIDTH, generator=generator),
        empty_embedding=torch.randn(TOKENS, WIDTH, generator=generator),
        file_names=[f"{index}.png" for index in range(IMAGES)],
        captions=["a hand"] * IMAGES,
        texts=[f"a hand, {PHRASES[gesture]}" for gesture in SHOWN],
        user_ids=list("abcd"),
        gestures=SHOWN,
    )


def fusion_of(own: dict[str, torch.Tensor]) -> GestureFusion:
    """A fusion to which f matters as much as e, also where it is only one."""
    start, weights = (torch.Generator().manual_seed(seed) for seed in (2, 3))
    fusion = GestureFusion(WIDTH, tuple(own)).initialize(torch.stack(list(own.values())), start)
    with torch.no_grad():
        fusion.linear.weight[:, WIDTH:] = 0.3 * torch.randn(WIDTH, 63, generator=weights)
        fusion.linear.bias.zero_()
    return fusion.requires_grad_(False)


def test_several_gestures_start_apart_and_one_at_the_text() -> None:
    generator = torch.Generator().manual_seed(3)
    text, several = torch.randn(1, TOKENS, WIDTH, generator=generator), torch.randn(3, 63, generator=generator)
    several[1] = several[0] + 0.01 * several[1]
    fusion = GestureFusion(WIDTH, ("four", "ok", "call")).initialize(several, generator)
    codes = (fusion(text.expand(3, -1, -1), torch.arange(3)) - text).detach()
    assert codes.square().mean().sqrt() == pytest.approx(GESTURE_SCALE, rel=1e-3)
    apart = torch.cdist(codes[:, 0], codes[:, 0])[~torch.eye(3, dtype=torch.bool)]
    assert apart.max() < 1.01 * apart.min()  # However alike two hands are.
    assert codes.mean(dim=0).abs().max() < 1e-4  # On average nothing is added to the text.
    one = GestureFusion(WIDTH, ("four",)).initialize(several[:1], generator)
    assert (one(text, torch.zeros(1, dtype=torch.long)) - text).abs().max() < 0.05


def trained(own: dict[str, torch.Tensor], shown: list[str]) -> Fusion:
    """A fusion after a few steps of Stage II."""
    changes = {"fusion_steps": 5, "fusion_batch_size": 2, "fusion_learning_rate": 1e-2, "lambda_": 0.2}
    return train_fusion(
        tiny_base(),
        dataclasses.replace(data(), gestures=shown),
        own,
        load_settings("default").stage2.model_copy(update=changes),
        TrainContext(seed=0),
    )[0]


# Names.


def test_gestures_are_named_with_commas() -> None:
    assert parse_gestures("four") == ("four",) and parse_gestures("ok,call,four") == ("ok", "call", "four")
    for text, fault in (("four,ok,four", "four stands twice"), ("four, ok", "' ok'"), ("four,", "''"), ("", "''")):
        with pytest.raises(Hand1000Error, match=fault):
            parse_gestures(text)
    assert slug(("call", "four")) == "call-four"
    everything = slug(tuple(PHRASES))
    assert everything.startswith("33-gestures-") and everything != slug(tuple(reversed(PHRASES)))


def test_a_prompt_says_by_its_phrase_which_gesture_it_means() -> None:
    known = ("four", "ok", "thumb_index")
    for gesture in known:
        assert find_gesture_in_prompt(f"A man,\n  {PHRASES[gesture].upper()} at night", known) == gesture
    assert find_gesture_in_prompt("a red hand", ("four",)) == "four"
    with pytest.raises(Hand1000Error, match="holds the phrase of none of this model's gestures, four, ok, thumb_index"):
        find_gesture_in_prompt("a red hand", known)
    with pytest.raises(Hand1000Error, match="the phrase of four and of ok of"):
        find_gesture_in_prompt(f"{PHRASES['ok']}, {PHRASES['four']}", known)
    # Each phrase names its gesture alone.
    assert all(find_gesture_in_prompt(phrase, tuple(PHRASES)) == gesture for gesture, phrase in PHRASES.items())


def test_items_are_grouped_by_gesture() -> None:
    orders = [GenerationRequest(str(index), "", index, gesture) for index, gesture in enumerate(SHOWN)]
    groups = group_by_gesture(orders)
    assert list(groups) == ["four", "ok"] and [[one.seed for one in own] for own in groups.values()] == [[0, 3], [1, 2]]


# Stage II.


def test_each_row_is_fused_with_its_own_feature(tmp_path: Path) -> None:
    own, text = features("four", "ok"), data().text_embeddings
    fusion = fusion_of(own)
    fused = double_fusion(text, fusion, 0.3, gesture_indices(fusion, SHOWN))
    for row, gesture in enumerate(SHOWN):
        alone = fusion_of({gesture: own[gesture]})
        expected = double_fusion(text[row : row + 1], alone, 0.3, torch.zeros(1, dtype=torch.long))
        assert torch.allclose(fused[row], expected[0], atol=1e-5)
    swapped = double_fusion(text, fusion, 0.3, 1 - gesture_indices(fusion, SHOWN))
    assert (fused - swapped).abs().amax(dim=(1, 2)).min() > 0.1
    with pytest.raises(Hand1000Error, match="gesture 'like': this model knows four, ok only"):
        gesture_indices(fusion, ["four", "like"])
    fusion.save_pretrained(tmp_path)
    loaded = load_fusion(tmp_path)
    assert loaded.gestures == ("four", "ok") and torch.equal(loaded.features, fusion.features)


def test_the_fusion_is_trained_with_each_images_own_feature() -> None:
    own = features("four", "ok")
    mixed = trained(own, SHOWN)
    renamed = trained({"ok": own["four"], "four": own["ok"]}, ["ok", "four", "four", "ok"])
    assert torch.equal(mixed.linear.weight, renamed.linear.weight)
    for other in (["four"] * IMAGES, ["ok", "four", "four", "ok"]):
        assert not torch.allclose(mixed.linear.weight, trained(own, other).linear.weight, atol=1e-5)
    with pytest.raises(Hand1000Error, match="gesture 'ok': this model knows four only"):
        trained(features("four"), SHOWN)


def test_the_flat_fusion_holds_one_gesture(tmp_path: Path) -> None:
    stage2 = load_settings("paper").stage2
    stage2.check_gestures(["four"])
    with pytest.raises(Hand1000Error, match=r"stage2\.fusion: flat holds one gesture, not four, ok; choose per_token"):
        stage2.check_gestures(["four", "ok"])


# Stage III.


def test_a_dropped_caption_is_the_empty_prompt_of_the_images_gesture() -> None:
    fusion = fusion_of(features("four", "ok"))
    empty = fused_null_embedding(data().empty_embedding, fusion, 0.3)
    for index, gesture in enumerate(("four", "ok")):
        alone = fused_null_embedding(data().empty_embedding, fusion_of(features(gesture)), 0.3)
        assert torch.allclose(empty[index], alone[0], atol=1e-5)
    gesture_ids = gesture_indices(fusion, SHOWN)
    latents = torch.arange(IMAGES).reshape(-1, 1, 1, 1).float()
    training_set = TrainingSet(latents, data().text_embeddings, empty, gesture_ids)
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
        expected = empty[gesture_ids[images]] if dropout else data().text_embeddings[images]
        assert torch.equal(batch.encoder_hidden_states, expected)


def mixed_settings() -> Settings:
    values = settings_with({"validation": {"images": 1, "every": 2, "images_drawn": 1, "patience": 0}}, {}).model_dump()
    values["stage3"]["prior"] |= {"images": 6}
    return Settings.model_validate(values)


def test_stage3_trains_each_image_with_its_own_gesture(tmp_path: Path) -> None:
    """The data of the trainer; test_stage3.py tests the training itself."""
    fusion, settings, prepared = fusion_of(features("four", "ok")), mixed_settings(), data()
    generator = torch.Generator().manual_seed(5)
    prior = Prior(
        torch.randn(6, 4, LATENT, LATENT, generator=generator), torch.randn(6, TOKENS, WIDTH, generator=generator)
    )
    refined = torch.randn(IMAGES, TOKENS, WIDTH, generator=generator)
    context = TrainContext(seed=settings.seed, compute=settings.compute)
    inputs = Stage3Inputs(prepared, fusion, refined, prior)
    trainer = setup_stage3(fresh_base(), inputs, settings, context, tmp_path)
    (images, prior_images), validation = [sampler.data for sampler, _ in trainer.samplers], trainer.validation

    weight = settings.stage2.lambda_
    expected = fused_null_embedding(prepared.empty_embedding, fusion, weight)
    assert torch.equal(images.null_embeddings, expected) and torch.equal(prior_images.null_embeddings, expected)
    known = gesture_indices(fusion, SHOWN)
    assert len(images.latents) == IMAGES - 1
    for latents, embedding, gesture_id in zip(images.latents, images.embeddings, images.gesture_ids, strict=True):
        (image,) = [index for index in range(IMAGES) if torch.equal(prepared.latents[index], latents)]
        assert gesture_id == known[image] and torch.equal(embedding, refined[image])
    prior_ids = gesture_indices(fusion, [*SHOWN, *SHOWN[:2]])  # The prior's captions are those of the images, in turn.
    assert torch.equal(prior_images.gesture_ids, prior_ids)
    assert torch.equal(prior_images.embeddings, double_fusion(prior.text_embeddings, fusion, weight, prior_ids))
    assert validation is not None
    (image,) = [index for index in range(IMAGES) if torch.equal(prepared.latents[index], validation.latents[0])]
    expected = double_fusion(prepared.text_embeddings, fusion, weight, known)[image]
    assert torch.allclose(validation.embeddings[0], expected, atol=1e-5)
