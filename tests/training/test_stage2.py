"""Stage II: training of the fusion and optimization of the embeddings."""

import dataclasses
from pathlib import Path

import pytest
import torch

from hand1000.config.settings import load_settings
from hand1000.core.errors import Hand1000Error
from hand1000.models.conditioning import Conditioning
from hand1000.models.fusion import FusedEmbeddings, Fusion, GestureFusion, double_fusion
from hand1000.training.context import TrainContext
from hand1000.training.stage2 import create_embeddings, load_embeddings, optimize_all_embeddings, train_fusion
from tests.support.mixed_dataset import GESTURES, mixed_dataset, random_features
from tests.support.tiny_models import (
    LATENT,
    TOKENS,
    WIDTH,
    CrashingCheckpointStore,
    SimulatedKill,
    encoded_dataset,
    fresh_base,
    tiny_base,
)

DEFAULT = load_settings("default")
STAGE2 = DEFAULT.stage2.model_copy(
    update={
        "fusion_steps": 6,
        "fusion_batch_size": 2,
        "fusion_learning_rate": 1e-2,
        "embedding_steps": 3,
        "embedding_batch_size": 2,
        "embedding_learning_rate": 1e-2,
        "checkpoint_every": 2,
    }
)
IMAGES = 5


@pytest.fixture
def data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents, text embeddings and a gesture feature."""
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(IMAGES, 4, LATENT, LATENT, generator=generator),
        torch.randn(IMAGES, TOKENS, WIDTH, generator=generator),
        torch.randn(63, generator=generator),
    )


def test_fusion_training_lowers_the_loss_and_keeps_the_unet(data) -> None:
    latents, text, feature = data
    base = fresh_base()
    before = {name: value.clone() for name, value in base.unet.state_dict().items()}

    def losses(learning_rate: float) -> float:
        changes = {"fusion_steps": 40, "lambda_": 0.0, "fusion_learning_rate": learning_rate}
        fusion, history = train_fusion(
            base,
            encoded_dataset(latents, text),
            {"four": feature},
            STAGE2.model_copy(update=changes),
            TrainContext(seed=0),
        )
        assert torch.equal(fusion.features, feature[None])
        return sum(row["loss"] for row in history)

    # The noise is the same, so a fusion that hardly moves shows what training gains.
    assert losses(1e-2) < losses(1e-12)
    assert all(torch.equal(value, before[name]) for name, value in base.unet.state_dict().items())
    assert all(parameter.grad is None for parameter in base.unet.parameters())


def test_fusion_training_continues_to_the_same_bits(data, tmp_path: Path) -> None:
    latents, text, feature = data

    def train(checkpoint: CrashingCheckpointStore):
        return train_fusion(
            fresh_base(),
            encoded_dataset(latents, text),
            {"four": feature},
            STAGE2,
            TrainContext(seed=0, checkpoint=checkpoint),
        )

    whole, history = train(CrashingCheckpointStore(tmp_path / "whole"))
    with pytest.raises(SimulatedKill):
        train(CrashingCheckpointStore(tmp_path / "cut", crash_after=1))
    continued, again = train(CrashingCheckpointStore(tmp_path / "cut"))
    assert torch.equal(whole.linear.weight, continued.linear.weight)
    assert history == again


def optimize(data, span: slice, checkpoint: CrashingCheckpointStore, **changes):
    latents, text, _ = data
    keys = [f"{index}.png" for index in range(IMAGES)]
    return optimize_all_embeddings(
        fresh_base(),
        latents[span],
        Conditioning(text[span]),
        keys[span],
        STAGE2.model_copy(update=changes),
        TrainContext(seed=0, checkpoint=checkpoint),
    )


def test_every_embedding_moves_and_shards_give_the_same_bits(data, tmp_path: Path) -> None:
    whole, history = optimize(data, slice(None), CrashingCheckpointStore(tmp_path / "a"))
    parts = [
        optimize(data, span, CrashingCheckpointStore(tmp_path / f"b{span.start}"))[0]
        for span in (slice(0, 4), slice(4, 5))
    ]
    assert torch.equal(whole, torch.cat(parts))
    assert [row["step"] for row in history] == [2, 4, 5]
    assert all((whole[index] != data[1][index]).any() for index in range(IMAGES))


def test_batches_of_embeddings_equal_single_images(data, tmp_path: Path) -> None:
    """Losses are summed: a mean would scale Adam's epsilon."""
    batched, _ = optimize(data, slice(None), CrashingCheckpointStore(tmp_path / "a"), embedding_batch_size=5)
    single, _ = optimize(data, slice(None), CrashingCheckpointStore(tmp_path / "b"), embedding_batch_size=1)
    assert torch.allclose(batched, single, atol=1e-5)


def test_noise_of_an_embedding_is_keyed_by_its_image(data) -> None:
    latents, text, _ = data
    images = (latents[:1].expand(2, -1, -1, -1), Conditioning(text[:1].expand(2, -1, -1)))
    for keys, are_equal in ((["a.png", "a.png"], True), (["a.png", "b.png"], False)):
        (first, second), _ = optimize_all_embeddings(fresh_base(), *images, keys, STAGE2, TrainContext(seed=0))
        assert torch.allclose(first, second, atol=1e-4) == are_equal


def test_optimizing_embeddings_continues_to_the_same_bits(data, tmp_path: Path) -> None:
    whole, history = optimize(data, slice(None), CrashingCheckpointStore(tmp_path / "a"))
    with pytest.raises(SimulatedKill):
        optimize(data, slice(None), CrashingCheckpointStore(tmp_path / "b", crash_after=1))
    continued, again = optimize(data, slice(None), CrashingCheckpointStore(tmp_path / "b"))
    assert torch.equal(whole, continued) and history == again


def test_embeddings_of_shards_load_in_the_requested_order(tmp_path: Path) -> None:
    for name, file_names, value in (("a", ["x.png"], 0.0), ("b", ["y.png", "w.png"], 1.0), ("c", [], 2.0)):
        (tmp_path / name).mkdir()
        with create_embeddings(tmp_path / name, (len(file_names), 2, 3), file_names) as rows:
            rows[:] = torch.full(rows.shape, value)
    together = load_embeddings([tmp_path / "a", tmp_path / "b", tmp_path / "c"], ["y.png", "x.png"])
    assert together.shape == (2, 2, 3) and together[:][:, 0, 0].tolist() == [1.0, 0.0]
    with pytest.raises(Hand1000Error, match=r"z\.png: no embedding"):
        load_embeddings([tmp_path / "a"], ["z.png"])


@pytest.mark.parametrize("steps", [0, 3])
def test_embeddings_go_to_a_file_batch_by_batch(data, tmp_path: Path, steps: int) -> None:
    latents, text, feature = data
    fusion = GestureFusion(WIDTH, ("four",)).initialize(feature[None], torch.Generator().manual_seed(0))
    h = FusedEmbeddings(text, fusion, 0.3, torch.zeros(IMAGES, dtype=torch.long))
    keys = [f"{index}.png" for index in range(IMAGES)]
    settings = STAGE2.model_copy(update={"embedding_steps": steps})

    def optimize_into(crash_after: int | None, **out):
        context = TrainContext(seed=0, checkpoint=CrashingCheckpointStore(tmp_path / "state", crash_after=crash_after))
        return optimize_all_embeddings(fresh_base(), latents, Conditioning(h), keys, settings, context, **out)[0]

    expected = optimize_all_embeddings(fresh_base(), latents, Conditioning(h), keys, settings, TrainContext(seed=0))[0]
    if steps:
        with pytest.raises(SimulatedKill):
            optimize_into(1)
    with create_embeddings(tmp_path, h.shape, keys) as rows:
        assert optimize_into(None, out=rows) is rows
    assert torch.equal(load_embeddings([tmp_path], keys)[:], expected)
    assert torch.allclose(h[:], double_fusion(text, fusion, 0.3, h.gesture_ids), atol=1e-6)
    assert torch.allclose(expected, h[:], atol=1e-6) == (not steps)


def train_mixed(features: dict[str, torch.Tensor], gestures: list[str]) -> Fusion:
    """A fusion after a few steps of Stage II."""
    changes = {"fusion_steps": 5, "fusion_batch_size": 2, "fusion_learning_rate": 1e-2, "lambda_": 0.2}
    return train_fusion(
        tiny_base(),
        dataclasses.replace(mixed_dataset(), gestures=gestures),
        features,
        load_settings("default").stage2.model_copy(update=changes),
        TrainContext(seed=0),
    )[0]


def test_fusion_trains_with_the_feature_of_each_image() -> None:
    own = random_features("four", "ok")
    mixed = train_mixed(own, GESTURES)
    renamed = train_mixed({"ok": own["four"], "four": own["ok"]}, ["ok", "four", "four", "ok"])
    assert torch.equal(mixed.linear.weight, renamed.linear.weight)
    for other in (["four"] * len(GESTURES), ["ok", "four", "four", "ok"]):
        assert not torch.allclose(mixed.linear.weight, train_mixed(own, other).linear.weight, atol=1e-5)
    with pytest.raises(Hand1000Error, match="gesture 'ok': this model knows four only"):
        train_mixed(random_features("four"), GESTURES)
