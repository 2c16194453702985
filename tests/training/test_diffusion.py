"""Fusion, Stages II and III, the pipeline: the maths, the draws, and the same bits after a kill."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hand1000.config.settings import load_settings
from hand1000.core.errors import Hand1000Error
from hand1000.core.progress import noop_callback
from hand1000.core.rng import derived_seed, derived_seeds, noise_and_timesteps, shuffled_batch
from hand1000.data.imageset import ImageRecord
from hand1000.models.base_model import load_base_model, read_resolution
from hand1000.models.encoding import encode_texts, find_truncated
from hand1000.models.fusion import GestureFusion, double_fusion
from hand1000.training.batches import NoisyBatch
from hand1000.training.context import TrainContext
from hand1000.training.encoded_dataset import EncodedDataset, encode_dataset
from hand1000.training.losses import diffusion_loss, hand_loss_mask
from hand1000.training.stage2 import load_embeddings, optimize_all_embeddings, save_embeddings, train_fusion
from tests.support.tiny_models import (
    LATENT,
    TEXTS,
    TOKENS,
    WIDTH,
    CrashingCheckpointStore,
    SimulatedKill,
    encoded_dataset,
    fresh_base,
    save_tiny_base,
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
DRAWING = {"mu": 0.7, "guidance_scale": 3.0, "autoguidance_scale": 1.0, "eta": 0.5, "num_inference_steps": 3}
IMAGES = 5
ONLY = torch.zeros(IMAGES, dtype=torch.long)
"""Which gesture the images show, where there is one."""


@pytest.fixture
def data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents, text embeddings and a gesture feature."""
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(IMAGES, 4, LATENT, LATENT, generator=generator),
        torch.randn(IMAGES, TOKENS, WIDTH, generator=generator),
        torch.randn(63, generator=generator),
    )


def fusion_of(feature: torch.Tensor) -> GestureFusion:
    return GestureFusion(WIDTH, ("four",)).initialize(feature[None], torch.Generator().manual_seed(2))


def test_draws_are_keyed_and_pinned() -> None:
    """A change of these constants would break every unfinished run."""
    assert derived_seed(1000, "unet", 3) == 7941601416609399165 != derived_seed(1000, "unet", 4)
    for last in (3, 'ä quote"', ""):
        assert derived_seeds(1000, "unet", 7)(last) == derived_seed(1000, "unet", 7, last)
    noise, timesteps = noise_and_timesteps((1, 2, 2), 0, "refine", [("a", 0), ("b", 0)], 1000)
    again, same = noise_and_timesteps((1, 2, 2), 0, "refine", [("b", 0)], 1000)
    assert torch.equal(noise[1:], again) and torch.equal(timesteps[1:], same)
    assert int(timesteps.min()) >= 0 and int(timesteps.max()) < 1000


def test_every_epoch_shows_every_item_once() -> None:
    seen = [index for step in range(10) for index in shuffled_batch(5, 2, step, 0, "unet")]
    for epoch in range(4):
        assert sorted(seen[5 * epoch : 5 * epoch + 5]) == [0, 1, 2, 3, 4]
    assert seen[:5] != seen[5:10]


def test_fusion_starts_as_identity_on_the_text_and_near_zero_on_the_gesture(data) -> None:
    _, text, feature = data
    fusion = fusion_of(feature)
    assert torch.allclose(fusion(text, ONLY), text, atol=0.1)
    assert not torch.equal(fusion(text, ONLY), text)
    fusion.features.zero_()
    assert torch.equal(fusion(text, ONLY), text)


def test_double_fusion_weighs_text_against_gesture(data) -> None:
    _, text, feature = data
    fusion = fusion_of(feature)
    assert torch.equal(double_fusion(text, fusion, 1.0, ONLY), text)
    assert torch.allclose(double_fusion(text, fusion, 0.25, ONLY), 0.25 * text + 0.75 * fusion(text, ONLY))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_denoising_error_is_zero_for_a_perfect_prediction(kind: str) -> None:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(prediction_type=kind)
    clean, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    timesteps = torch.tensor([10, 900])
    target = noise if kind == "epsilon" else scheduler.get_velocity(clean, noise, timesteps)

    class Perfect:
        def __call__(self, noisy, at, condition):
            return type("Output", (), {"sample": target + torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1)})

    batch = NoisyBatch(clean, torch.zeros(2, 1, 1), noise, timesteps)

    def losses(pixel_weights: torch.Tensor | None = None) -> torch.Tensor:
        arguments = (Perfect(), scheduler, batch, DEFAULT.compute)
        return diffusion_loss(*arguments, pixel_weights=pixel_weights, reduction="none")

    assert torch.allclose(losses(), torch.tensor([0.0, 1.0]), atol=1e-5)
    assert float(diffusion_loss(Perfect(), scheduler, batch, DEFAULT.compute)) == pytest.approx(0.5, abs=1e-5)
    weights = torch.zeros(2, 1, 8, 8)
    weights[:, :, :2, :2] = 16.0
    assert torch.allclose(losses(weights), torch.tensor([0.0, 1.0]), atol=1e-5)
    weights[1] = 0.0
    assert torch.allclose(losses(weights), torch.zeros(2), atol=1e-5)


def test_the_hands_box_counts_for_as_much_more_as_is_asked() -> None:
    boxes = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.25, 0.0, 0.125, 1.0], [0.0, 0.0, 1.0, 1.0]])
    quarter, narrow, whole = hand_loss_mask(boxes, 4, 4, 3.0)
    assert torch.allclose(quarter[0, :2, :2], torch.tensor(2.0)) and torch.allclose(quarter[0, 2:], torch.tensor(2 / 3))
    # Half of the second column lies inside: 1 + 2 * 0.5 against 1.
    assert torch.allclose(narrow[0, :, 1] / narrow[0, :, 0], torch.tensor(2.0))
    assert torch.allclose(whole, torch.ones(1, 4, 4))
    assert torch.equal(hand_loss_mask(boxes, 4, 4, 1.0), torch.ones(3, 1, 4, 4))


def test_fusion_training_lowers_the_loss_and_leaves_the_unet_alone(data) -> None:
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

    # The draws are the same, so a fusion that hardly moves tells what the trained one gained.
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


def refine(data, span: slice, checkpoint: CrashingCheckpointStore, **changes):
    latents, text, _ = data
    keys = [f"{index}.png" for index in range(IMAGES)]
    return optimize_all_embeddings(
        fresh_base(),
        latents[span],
        text[span],
        keys[span],
        STAGE2.model_copy(update=changes),
        TrainContext(seed=0, checkpoint=checkpoint),
    )


def test_refining_moves_every_embedding_and_shards_give_the_same_bits(data, tmp_path: Path) -> None:
    whole, history = refine(data, slice(None), CrashingCheckpointStore(tmp_path / "a"))
    parts = [
        refine(data, span, CrashingCheckpointStore(tmp_path / f"b{span.start}"))[0]
        for span in (slice(0, 4), slice(4, 5))
    ]
    assert torch.equal(whole, torch.cat(parts))
    assert [row["step"] for row in history] == [2, 4, 5]
    assert all((whole[index] != data[1][index]).any() for index in range(IMAGES))


def test_refining_in_batches_equals_one_image_at_a_time(data, tmp_path: Path) -> None:
    """Losses are summed: a mean would scale Adam's epsilon."""
    batched, _ = refine(data, slice(None), CrashingCheckpointStore(tmp_path / "a"), embedding_batch_size=5)
    single, _ = refine(data, slice(None), CrashingCheckpointStore(tmp_path / "b"), embedding_batch_size=1)
    assert torch.allclose(batched, single, atol=1e-5)


def test_refining_continues_to_the_same_bits(data, tmp_path: Path) -> None:
    whole, history = refine(data, slice(None), CrashingCheckpointStore(tmp_path / "a"))
    with pytest.raises(SimulatedKill):
        refine(data, slice(None), CrashingCheckpointStore(tmp_path / "b", crash_after=1))
    continued, again = refine(data, slice(None), CrashingCheckpointStore(tmp_path / "b"))
    assert torch.equal(whole, continued) and history == again


def test_embeddings_of_shards_are_put_in_the_order_asked_for(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    save_embeddings(tmp_path / "a", torch.zeros(1, 2, 3), ["x.png"])
    save_embeddings(tmp_path / "b", torch.ones(1, 2, 3), ["y.png"])
    together = load_embeddings([tmp_path / "a", tmp_path / "b"], ["y.png", "x.png"])
    assert together[:, 0, 0].tolist() == [1.0, 0.0]
    with pytest.raises(Hand1000Error, match=r"z\.png: no embedding"):
        load_embeddings([tmp_path / "a"], ["z.png"])


def test_base_model_loads_from_a_folder_and_says_what_is_missing(tmp_path: Path) -> None:
    folder = save_tiny_base(tmp_path / "base")
    assert read_resolution(str(folder)) == 4 * LATENT
    base = load_base_model(str(folder))
    assert not any(parameter.requires_grad for parameter in base.unet.parameters())
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(Hand1000Error, match="cannot be loaded"):
        load_base_model(str(folder))
    with pytest.raises(Hand1000Error, match=r"model_index\.json is missing"):
        load_base_model(str(tmp_path))
    with pytest.raises(Hand1000Error, match="pin the revision"):
        load_base_model("somebody/some-model")


def test_encoded_data_keeps_the_order_and_reports_cut_captions(tmp_path: Path, caplog) -> None:
    base = tiny_base()
    rng = np.random.default_rng(0)
    names = ["a.png", "b.png"]
    for name in names:
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(tmp_path / name)
    texts = [TEXTS[1], "hand " * 50]
    common = {"captioner": "dataset", "gesture": "four", "user_id": "u", "source": "0" * 64}
    records = [
        ImageRecord(file_name=name, text=text, caption=text, **common) for name, text in zip(names, texts, strict=True)
    ]
    prepared = encode_dataset(base, tmp_path, records, noop_callback, batch_size=1)
    assert prepared.latents.shape == (2, 4, LATENT, LATENT)
    assert caplog.messages == [
        "1 of 2 captions are longer than the 16 tokens that the text encoder reads; their end is lost: b.png"
    ]
    assert torch.equal(prepared.empty_embedding, encode_texts(base.text_encoder, base.tokenizer, [""])[0])
    prepared.save(tmp_path)
    loaded = EncodedDataset.load(tmp_path)
    assert torch.equal(loaded.text_embeddings, prepared.text_embeddings) and loaded.file_names == names
    assert (loaded.captions, loaded.texts, loaded.user_ids) == (texts, texts, ["u", "u"])
    assert loaded.gestures == ["four", "four"]
    assert find_truncated(base.tokenizer, []) == []
