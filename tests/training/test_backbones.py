"""Stages II and III on every other backbone: losses fall, and shards and restarts give the same bits."""

from pathlib import Path

import pytest
import torch

from hand1000.config.settings import Settings
from hand1000.models.base_model import load_base_model
from hand1000.models.fusion import Fusion, double_fusion, gesture_indices
from hand1000.models.low_rank_fusion import LowRankFusion
from hand1000.pipelines.pipeline_hand1000 import load_pipeline
from hand1000.training.batches import NoisyBatch
from hand1000.training.checkpoint import Tensors
from hand1000.training.context import TrainContext
from hand1000.training.lora import add_adapter
from hand1000.training.losses import diffusion_loss
from hand1000.training.precision import configure_denoiser
from hand1000.training.stage2 import optimize_all_embeddings, train_fusion
from hand1000.training.stage3_io import Stage3Inputs, save_pipeline, setup_stage3
from tests.support.backbones import TINY_BACKBONES, TinyBackbone
from tests.support.tiny_models import CrashingCheckpointStore, SimulatedKill

SHORT = {
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
FEATURES = {"four": torch.randn(63, generator=torch.Generator().manual_seed(2))}


@pytest.fixture(scope="module", params=TINY_BACKBONES)
def tiny(request: pytest.FixtureRequest) -> TinyBackbone:
    return TINY_BACKBONES[request.param]


def settings_of(tiny: TinyBackbone, **changes) -> Settings:
    return tiny.settings.with_overrides(SHORT | {name.replace("__", "."): value for name, value in changes.items()})


def fusion_of(tiny: TinyBackbone, checkpoint: CrashingCheckpointStore | None = None, **changes):
    settings = settings_of(tiny, **changes)
    context = TrainContext(seed=0, compute=settings.compute, **({"checkpoint": checkpoint} if checkpoint else {}))
    return train_fusion(tiny.fresh(), tiny.dataset(), FEATURES, settings.stage2, context)


@pytest.fixture(scope="module")
def fusion(tiny: TinyBackbone) -> Fusion:
    return fusion_of(tiny)[0]


@pytest.mark.parametrize("adapted", [False, True], ids=["stage 2", "stage 3"])
def test_gradient_checkpointing_keeps_less_of_a_step(tiny: TinyBackbone, adapted: bool) -> None:
    kept: list[int] = []
    for checkpointing in (False, True):
        settings = settings_of(tiny, compute__gradient_checkpointing=checkpointing)
        base, captions = tiny.fresh(), tiny.dataset().conditioning[:2]
        configure_denoiser(base.denoiser, settings.compute, frozen=True)
        if adapted:
            add_adapter(base.denoiser, settings.stage3.lora, seed=0)
        conditioning = captions.with_tokens(captions.tokens.clone().requires_grad_(not adapted))
        noise = torch.randn(2, *base.latent_shape)
        saved: list[int] = []
        # What a checkpointed block saves inside is seen by the hooks of the checkpoint alone.
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor, saved=saved: saved.append(tensor.nbytes), id):
            batch = NoisyBatch(noise, conditioning, noise, torch.tensor([5, 400]))
            diffusion_loss(base, batch, settings.compute)
        kept.append(sum(saved))
    assert kept[1] < kept[0] / 2


@pytest.mark.parametrize("kind", ["low_rank", "per_token"])
def test_fusion_training_lowers_the_loss_in_bf16(tiny: TinyBackbone, kind: str) -> None:
    """The noise is the same, so a fusion that hardly moves shows what training gains."""
    moves = {"stage2__fusion": kind, "stage2__fusion_steps": 12, "stage2__lambda_": 0.0}
    losses = [
        sum(row["loss"] for row in fusion_of(tiny, **moves, stage2__fusion_learning_rate=rate)[1])
        for rate in (1e-2, 1e-12)
    ]
    assert losses[0] < losses[1]


def test_fusion_training_continues_to_the_same_bits(tiny: TinyBackbone, tmp_path: Path) -> None:
    whole, history = fusion_of(tiny, CrashingCheckpointStore(tmp_path / "whole"))
    with pytest.raises(SimulatedKill):
        fusion_of(tiny, CrashingCheckpointStore(tmp_path / "cut", crash_after=1))
    continued, again = fusion_of(tiny, CrashingCheckpointStore(tmp_path / "cut"))
    assert isinstance(whole, LowRankFusion) and whole.up.weight.any() and history == again
    assert all(torch.equal(value, continued.state_dict()[name]) for name, value in whole.state_dict().items())


def optimize(tiny: TinyBackbone, fusion: Fusion, span: slice, checkpoint: CrashingCheckpointStore, **changes):
    data, settings = tiny.dataset(), settings_of(tiny, **changes)
    with torch.no_grad():
        ids = gesture_indices(fusion, data.gestures)
        h = double_fusion(data.text_embeddings, fusion, settings.stage2.lambda_, ids)
    start = data.conditioning.with_tokens(h)[span]
    context = TrainContext(seed=0, compute=settings.compute, checkpoint=checkpoint)
    names = data.file_names[span]
    return optimize_all_embeddings(tiny.fresh(), data.latents[span], start, names, settings.stage2, context)


def test_optimizing_the_embeddings_lowers_the_loss(tiny: TinyBackbone, fusion: Fusion, tmp_path: Path) -> None:
    losses = []
    for rate in (1e-1, 1e-12):
        changes = {"stage2__embedding_learning_rate": rate, "stage2__embedding_steps": 16}
        _, history = optimize(tiny, fusion, slice(None), CrashingCheckpointStore(tmp_path / str(rate)), **changes)
        losses.append(sum(row["loss"] for row in history))
    assert losses[0] < losses[1]


def test_shards_and_restarts_of_embeddings_give_the_same_bits(tiny: TinyBackbone, fusion, tmp_path: Path) -> None:
    whole, history = optimize(tiny, fusion, slice(None), CrashingCheckpointStore(tmp_path / "a"))
    spans = (slice(0, 2), slice(2, 4), slice(4, 5))
    parts = [optimize(tiny, fusion, span, CrashingCheckpointStore(tmp_path / f"{span.start}"))[0] for span in spans]
    assert torch.equal(whole, torch.cat(parts)) and whole.shape == tiny.dataset().text_embeddings.shape
    with pytest.raises(SimulatedKill):
        optimize(tiny, fusion, slice(None), CrashingCheckpointStore(tmp_path / "b", crash_after=1))
    continued, again = optimize(tiny, fusion, slice(None), CrashingCheckpointStore(tmp_path / "b"))
    assert torch.equal(whole, continued) and history == again


def train_denoiser(
    tiny: TinyBackbone, fusion: Fusion, checkpoint: CrashingCheckpointStore, **changes
) -> tuple[Tensors, list[dict]]:
    settings = settings_of(tiny, **changes)
    context = TrainContext(seed=0, compute=settings.compute, checkpoint=checkpoint)
    inputs = Stage3Inputs(tiny.dataset(), fusion, tiny.dataset().text_embeddings)
    return setup_stage3(tiny.fresh(), inputs, settings, context, checkpoint.folder.parent).train()


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_an_interrupted_training_ends_in_the_same_bits(tiny: TinyBackbone, fusion, mode: str, tmp_path: Path) -> None:
    whole, history = train_denoiser(
        tiny, fusion, CrashingCheckpointStore(tmp_path / "whole"), stage3__training_mode=mode
    )
    with pytest.raises(SimulatedKill):
        train_denoiser(
            tiny, fusion, CrashingCheckpointStore(tmp_path / "cut", crash_after=1), stage3__training_mode=mode
        )
    again, same = train_denoiser(tiny, fusion, CrashingCheckpointStore(tmp_path / "cut"), stage3__training_mode=mode)
    assert history == same and all(torch.equal(value, again[name]) for name, value in whole.items())


def test_training_of_adapters_lowers_the_loss(tiny: TinyBackbone, fusion: Fusion, tmp_path: Path) -> None:
    """The noise is the same, so a training that hardly moves shows what training gains."""
    moves = {"stage3__steps": 16, "stage3__micro_batch_size": 2, "stage3__caption_dropout": 0.0}
    losses = []
    for rate in (1e-2, 1e-12):
        (tmp_path / str(rate)).mkdir()
        store = CrashingCheckpointStore(tmp_path / str(rate) / "state")
        _, history = train_denoiser(tiny, fusion, store, **moves, stage3__learning_rate=rate)
        losses.append(sum(row["loss"] for row in history[8:]))
    assert losses[0] < 0.98 * losses[1]


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_a_trained_model_is_saved_and_loaded(tiny: TinyBackbone, fusion: Fusion, mode: str, tmp_path: Path) -> None:
    store = CrashingCheckpointStore(tmp_path / "state")
    weights, _ = train_denoiser(tiny, fusion, store, stage3__training_mode=mode)
    base = load_base_model(str(tiny.save(tmp_path / "base")))
    settings = settings_of(tiny, generation__autoguidance_scale=2.0, stage3__training_mode=mode)
    save_pipeline(base, weights, fusion, settings, tmp_path / "model")
    pipeline = load_pipeline(tmp_path / "model")
    assert type(pipeline.backbone) is type(base) and isinstance(pipeline.fusion, LowRankFusion)
    tuned, weak = (module.state_dict() for module in (pipeline.backbone.denoiser, pipeline.guidance_denoiser))
    assert any(not torch.equal(value, weak[name]) for name, value in tuned.items())
    prompts = ["a left hand, making four fingers up hand gesture"] * 2
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    images = pipeline(prompts, num_inference_steps=2, generator=generators, output_type="np").images
    assert images.shape == (2, base.resolution, base.resolution, 3)
    alone = pipeline(prompts[0], num_inference_steps=2, generator=torch.Generator().manual_seed(0), output_type="np")
    assert abs(alone.images[0].astype(int) - images[0]).max() <= 1
