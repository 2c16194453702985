"""Stages II and III on Stable Diffusion 3: losses fall, and shards and restarts give the same bits."""

from pathlib import Path

import pytest
import torch

from hand1000.config.settings import load_settings
from hand1000.models.base_model import load_base_model
from hand1000.models.fusion import Fusion, double_fusion, gesture_indices
from hand1000.models.low_rank_fusion import LowRankFusion
from hand1000.models.stable_diffusion_3 import StableDiffusion3
from hand1000.pipelines.pipeline_hand1000 import load_pipeline
from hand1000.training.checkpoint import Tensors
from hand1000.training.context import TrainContext
from hand1000.training.stage2 import optimize_all_embeddings, train_fusion
from hand1000.training.stage3_io import Stage3Inputs, save_pipeline, setup_stage3
from tests.support.tiny_models import CrashingCheckpointStore, SimulatedKill
from tests.support.tiny_sd3 import fresh_sd3, save_tiny_sd3_without_t5, sd3_dataset

SD3 = load_settings("sd3").with_overrides(
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
DATA = sd3_dataset()


def fusion_of(checkpoint: CrashingCheckpointStore | None = None, **stage2) -> tuple[Fusion, list[dict]]:
    context = TrainContext(seed=0, compute=SD3.compute, **({"checkpoint": checkpoint} if checkpoint else {}))
    return train_fusion(fresh_sd3(), DATA, FEATURES, SD3.stage2.model_copy(update=stage2), context)


@pytest.fixture(scope="module")
def fusion() -> Fusion:
    return fusion_of()[0]


@pytest.mark.parametrize("kind", ["low_rank", "per_token"])
def test_fusion_training_lowers_the_loss_in_bf16(kind: str) -> None:
    """The noise is the same, so a fusion that hardly moves shows what training gains."""
    losses = [
        sum(row["loss"] for row in fusion_of(fusion=kind, fusion_steps=12, lambda_=0.0, fusion_learning_rate=rate)[1])
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


def test_zeros_in_place_of_t5_do_not_shrink_the_first_fusion() -> None:
    generator = torch.Generator().manual_seed(0)
    shifts = []
    for t5 in (True, False):
        tokens = fresh_sd3(t5).encode_text(DATA.texts).tokens
        start = LowRankFusion(tokens.shape[-1], ("four", "palm"), 0, 3)
        start.initialize(torch.randn(2, 63, generator=generator), tokens, generator)
        shifts.append(start.shift(start.features).norm())
    assert 0.1 < shifts[1] / shifts[0] < 10


def optimize(fusion: Fusion, span: slice, checkpoint: CrashingCheckpointStore, **stage2):
    ids = gesture_indices(fusion, DATA.gestures)
    with torch.no_grad():
        h = double_fusion(DATA.text_embeddings, fusion, SD3.stage2.lambda_, ids)
    start = DATA.conditioning.with_tokens(h)[span]
    context = TrainContext(seed=0, compute=SD3.compute, checkpoint=checkpoint)
    settings = SD3.stage2.model_copy(update=stage2)
    return optimize_all_embeddings(fresh_sd3(), DATA.latents[span], start, DATA.file_names[span], settings, context)


def test_optimizing_the_embeddings_lowers_the_loss(fusion, tmp_path: Path) -> None:
    losses = []
    for rate in (1e-1, 1e-12):
        changes = {"embedding_learning_rate": rate, "embedding_steps": 16}
        _, history = optimize(fusion, slice(None), CrashingCheckpointStore(tmp_path / str(rate)), **changes)
        losses.append(sum(row["loss"] for row in history))
    assert losses[0] < losses[1]


def test_shards_and_restarts_of_the_embeddings_give_the_same_bits(fusion, tmp_path: Path) -> None:
    whole, history = optimize(fusion, slice(None), CrashingCheckpointStore(tmp_path / "a"))
    spans = (slice(0, 2), slice(2, 4), slice(4, 5))
    parts = [optimize(fusion, span, CrashingCheckpointStore(tmp_path / f"{span.start}"))[0] for span in spans]
    assert torch.equal(whole, torch.cat(parts)) and whole.shape == DATA.text_embeddings.shape
    with pytest.raises(SimulatedKill):
        optimize(fusion, slice(None), CrashingCheckpointStore(tmp_path / "b", crash_after=1))
    continued, again = optimize(fusion, slice(None), CrashingCheckpointStore(tmp_path / "b"))
    assert torch.equal(whole, continued) and history == again


def train_transformer(fusion: Fusion, checkpoint: CrashingCheckpointStore, **stage3) -> tuple[Tensors, list[dict]]:
    settings = SD3.model_copy(update={"stage3": SD3.stage3.model_copy(update=stage3)})
    context = TrainContext(seed=0, compute=settings.compute, checkpoint=checkpoint)
    inputs = Stage3Inputs(DATA, fusion, DATA.text_embeddings)
    return setup_stage3(fresh_sd3(), inputs, settings, context, checkpoint.folder.parent).train()


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_an_interrupted_training_ends_in_the_same_bits(fusion, mode: str, tmp_path: Path) -> None:
    whole, history = train_transformer(fusion, CrashingCheckpointStore(tmp_path / "whole"), training_mode=mode)
    with pytest.raises(SimulatedKill):
        train_transformer(fusion, CrashingCheckpointStore(tmp_path / "cut", crash_after=1), training_mode=mode)
    again, same = train_transformer(fusion, CrashingCheckpointStore(tmp_path / "cut"), training_mode=mode)
    assert history == same and all(torch.equal(value, again[name]) for name, value in whole.items())


def test_training_of_adapters_lowers_the_loss(fusion, tmp_path: Path) -> None:
    """The noise is the same, so a training that hardly moves shows what training gains."""
    losses = []
    for rate in (1e-2, 1e-12):
        (tmp_path / str(rate)).mkdir()
        moves = {"steps": 16, "learning_rate": rate, "micro_batch_size": 2, "caption_dropout": 0.0}
        _, history = train_transformer(fusion, CrashingCheckpointStore(tmp_path / str(rate) / "state"), **moves)
        losses.append(sum(row["loss"] for row in history[8:]))
    assert losses[0] < 0.98 * losses[1]


def test_a_trained_model_is_saved_and_loaded_without_t5(fusion, tmp_path: Path) -> None:
    weights, _ = train_transformer(fusion, CrashingCheckpointStore(tmp_path / "state"))
    base = load_base_model(str(save_tiny_sd3_without_t5(tmp_path / "base")))
    settings = SD3.with_overrides({"generation.autoguidance_scale": 2.0})
    save_pipeline(base, weights, fusion, settings, tmp_path / "model")
    assert (tmp_path / "model" / "guidance_transformer").is_dir()
    pipeline = load_pipeline(tmp_path / "model")
    assert isinstance(pipeline.backbone, StableDiffusion3) and pipeline.text_encoder_3 is None
    prompts = ["a left hand, making four fingers up hand gesture"] * 2
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    images = pipeline(prompts, num_inference_steps=2, generator=generators, output_type="np").images
    assert images.shape == (2, 16, 16, 3)
    alone = pipeline(prompts[0], num_inference_steps=2, generator=torch.Generator().manual_seed(0), output_type="np")
    assert abs(alone.images[0].astype(int) - images[0]).max() <= 1
