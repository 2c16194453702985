"""Stages II and III on Stable Diffusion XL: losses fall, and shards and restarts give the same bits."""

import dataclasses
from pathlib import Path

import pytest
import torch

from hand1000.config.settings import load_settings
from hand1000.models.base_model import load_base_model, read_resolution
from hand1000.models.fusion import double_fusion, fused_null_embedding, gesture_indices
from hand1000.models.low_rank_fusion import LowRankFusion
from hand1000.models.stable_diffusion_xl import StableDiffusionXL
from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline, load_pipeline
from hand1000.training.checkpoint import Tensors
from hand1000.training.context import TrainContext
from hand1000.training.stage2 import optimize_all_embeddings, train_fusion
from hand1000.training.stage3_io import Stage3Inputs, save_pipeline, setup_stage3
from tests.support.tiny_models import CrashingCheckpointStore, SimulatedKill
from tests.support.tiny_sdxl import POOLED, XL_WIDTH, fresh_sdxl, save_tiny_sdxl, sdxl_dataset

SDXL = load_settings("sdxl").with_overrides(
    {
        "stage2.fusion_rank": 3,
        "stage2.fusion_steps": 6,
        "stage2.fusion_batch_size": 2,
        "stage2.fusion_learning_rate": 1e-2,
        "stage2.embedding_steps": 3,
        "stage2.embedding_batch_size": 2,
        "stage2.embedding_learning_rate": 1e-2,
        "stage2.checkpoint_every": 2,
        "stage3.steps": 4,
        "stage3.batch_size": 2,
        "stage3.micro_batch_size": 1,
        "stage3.warmup_steps": 0,
        "stage3.learning_rate": 1e-2,
        "stage3.caption_dropout": 0.5,
        "stage3.checkpoint_every": 2,
    }
)
FEATURES = {"four": torch.randn(63, generator=torch.Generator().manual_seed(2))}
DATA = sdxl_dataset()


def fusion_of(checkpoint: CrashingCheckpointStore | None = None, **stage2) -> tuple[LowRankFusion, list[dict]]:
    context = TrainContext(seed=0, compute=SDXL.compute, **({"checkpoint": checkpoint} if checkpoint else {}))
    return train_fusion(fresh_sdxl(), DATA, FEATURES, SDXL.stage2.model_copy(update=stage2), context)


@pytest.fixture(scope="module")
def fusion() -> LowRankFusion:
    return fusion_of()[0]


def test_fusion_training_lowers_the_loss_in_bf16() -> None:
    """The noise is the same, so a fusion that hardly moves shows what training gains."""
    losses = [
        sum(row["loss"] for row in fusion_of(fusion_steps=12, lambda_=0.0, fusion_learning_rate=rate)[1])
        for rate in (1e-2, 1e-12)
    ]
    assert losses[0] < losses[1]


def test_fusion_training_continues_to_the_same_bits(tmp_path: Path) -> None:
    whole, history = fusion_of(CrashingCheckpointStore(tmp_path / "whole"))
    with pytest.raises(SimulatedKill):
        fusion_of(CrashingCheckpointStore(tmp_path / "cut", crash_after=1))
    continued, again = fusion_of(CrashingCheckpointStore(tmp_path / "cut"))
    assert isinstance(whole, LowRankFusion) and whole.up.weight.any() and history == again
    assert all(torch.equal(value, continued.state_dict()[name]) for name, value in whole.state_dict().items())


def optimize(fusion: LowRankFusion, span: slice, checkpoint: CrashingCheckpointStore):
    ids = gesture_indices(fusion, DATA.gestures)
    with torch.no_grad():
        h = double_fusion(DATA.text_embeddings, fusion, SDXL.stage2.lambda_, ids)
    start = DATA.conditioning.with_tokens(h)[span]
    context = TrainContext(seed=0, compute=SDXL.compute, checkpoint=checkpoint)
    return optimize_all_embeddings(fresh_sdxl(), DATA.latents[span], start, DATA.file_names[span], SDXL.stage2, context)


def test_shards_and_restarts_of_the_embeddings_give_the_same_bits(fusion, tmp_path: Path) -> None:
    whole, history = optimize(fusion, slice(None), CrashingCheckpointStore(tmp_path / "a"))
    spans = (slice(0, 2), slice(2, 4), slice(4, 5))
    parts = [optimize(fusion, span, CrashingCheckpointStore(tmp_path / f"{span.start}"))[0] for span in spans]
    assert torch.equal(whole, torch.cat(parts)) and whole.shape == DATA.text_embeddings.shape
    with pytest.raises(SimulatedKill):
        optimize(fusion, slice(None), CrashingCheckpointStore(tmp_path / "b", crash_after=1))
    continued, again = optimize(fusion, slice(None), CrashingCheckpointStore(tmp_path / "b"))
    assert torch.equal(whole, continued) and history == again


def train_unet(
    fusion: LowRankFusion, checkpoint: CrashingCheckpointStore, base: StableDiffusionXL | None = None, **stage3
) -> tuple[Tensors, list[dict]]:
    settings = SDXL.model_copy(update={"stage3": SDXL.stage3.model_copy(update=stage3)})
    context = TrainContext(seed=0, compute=settings.compute, checkpoint=checkpoint)
    inputs = Stage3Inputs(DATA, fusion, DATA.text_embeddings)
    return setup_stage3(base or fresh_sdxl(), inputs, settings, context, checkpoint.folder.parent).train()


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_an_interrupted_training_ends_in_the_same_bits(fusion, mode: str, tmp_path: Path) -> None:
    whole, history = train_unet(fusion, CrashingCheckpointStore(tmp_path / "whole"), training_mode=mode)
    with pytest.raises(SimulatedKill):
        train_unet(fusion, CrashingCheckpointStore(tmp_path / "cut", crash_after=1), training_mode=mode)
    again, same = train_unet(fusion, CrashingCheckpointStore(tmp_path / "cut"), training_mode=mode)
    assert history == same and all(torch.equal(value, again[name]) for name, value in whole.items())


def test_training_of_adapters_lowers_the_loss(fusion, tmp_path: Path) -> None:
    """The noise is the same, so a training that hardly moves shows what training gains."""
    losses = []
    for rate in (1e-2, 1e-12):
        (tmp_path / str(rate)).mkdir()
        moves = {"steps": 16, "learning_rate": rate, "micro_batch_size": 2, "caption_dropout": 0.0}
        _, history = train_unet(fusion, CrashingCheckpointStore(tmp_path / str(rate) / "state"), **moves)
        losses.append(sum(row["loss"] for row in history[8:]))
    assert losses[0] < 0.98 * losses[1]


def test_zeroed_negatives_are_trained_as_they_are_sampled(fusion) -> None:
    base = dataclasses.replace(fresh_sdxl(), force_zeros_for_empty_prompt=True)
    empty = base.encode_text([""])
    null = base.null_conditioning(empty)
    assert empty.tokens.any() and not null.tokens.any() and null.pooled is not None and not null.pooled.any()
    assert not fused_null_embedding(null.tokens[0], fusion, 0.3).any()
    kept = dataclasses.replace(base, force_zeros_for_empty_prompt=False).null_conditioning(empty)
    assert torch.equal(kept.tokens, empty.tokens) and kept.pooled is empty.pooled


def test_the_prediction_depends_on_the_pooled_vector() -> None:
    base, timestep = fresh_sdxl(), torch.tensor(500)
    conditioning = DATA.conditioning[:1]
    other = dataclasses.replace(conditioning, pooled=DATA.conditioning[1:2].pooled)
    with torch.no_grad():
        first, second = (base.predict(DATA.latents[:1], timestep, each) for each in (conditioning, other))
    assert conditioning.pooled is not None and conditioning.pooled.shape == (1, POOLED)
    assert not torch.allclose(first, second, atol=1e-4)


def test_a_trained_model_is_saved_and_loaded(fusion, tmp_path: Path) -> None:
    folder = str(save_tiny_sdxl(tmp_path / "base", zeros=False))
    assert read_resolution(folder) == 16
    weights, _ = train_unet(fusion, CrashingCheckpointStore(tmp_path / "state"))
    base = load_base_model(folder)
    assert isinstance(base, StableDiffusionXL) and base.text_dim == XL_WIDTH and base.resolution == 16
    save_pipeline(base, weights, fusion, SDXL, tmp_path / "model")
    pipeline = load_pipeline(tmp_path / "model")
    assert isinstance(pipeline.fusion, LowRankFusion) and pipeline.backbone.force_zeros_for_empty_prompt is False
    half = Hand1000Pipeline.from_pretrained(tmp_path / "model", torch_dtype=torch.float16)
    assert half.unet.dtype == torch.float16 and half.vae.dtype == torch.float32  # the released one overflows
    prompt = "a left hand, making four fingers up hand gesture"
    images = pipeline(
        prompt, num_inference_steps=2, generator=torch.Generator().manual_seed(0), output_type="np"
    ).images
    assert images.shape == (1, 16, 16, 3)
