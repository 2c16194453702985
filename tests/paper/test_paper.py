"""The preset `paper` against a plain account of the authors' loop."""

import copy
import dataclasses

import pytest
import torch
from diffusers import DDIMScheduler
from PIL import Image

from hand1000.config.settings import PRESETS, Settings, load_settings
from hand1000.core.errors import Hand1000Error
from hand1000.core.rng import noise_and_timesteps
from hand1000.data.crop import load_square
from hand1000.export.fold import fold_fusion
from hand1000.models.conditioning import Conditioning
from hand1000.models.flat_fusion import FlatFusion
from hand1000.models.fusion import double_fusion, load_fusion
from hand1000.models.stable_diffusion import StableDiffusion
from hand1000.paper import interleaved
from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline, build_pipeline, load_pipeline
from hand1000.training.context import TrainContext
from hand1000.training.stage2 import optimize_all_embeddings, train_fusion
from tests.support.tiny_models import (
    LATENT,
    TOKENS,
    WIDTH,
    CrashingCheckpointStore,
    SimulatedKill,
    encoded_dataset,
    fresh_base,
)

PAPER = load_settings("paper")
IMAGES = 3
GESTURE_IDS = torch.zeros(IMAGES, dtype=torch.long)
"""Index of each image's gesture."""


@pytest.fixture
def base() -> StableDiffusion:
    """Predicts the noise on Stable Diffusion's own levels, as the authors' base model does.

    Its text counts for a tenth. Where many terms of a gradient cancel out, only rounding is left of it, which Adam
    magnifies to whole steps unless it is well below its epsilon; with less of the text it is.
    """
    levels = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    base = dataclasses.replace(fresh_base(), scheduler=DDIMScheduler(**levels, clip_sample=False, steps_offset=1))
    with torch.no_grad():
        for name, weight in base.unet.named_parameters():
            if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
                weight.mul_(0.1)
    return base


@pytest.fixture
def data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents, text embeddings and the gesture feature."""
    generator = torch.Generator().manual_seed(3)
    return (
        torch.randn(IMAGES, 4, LATENT, LATENT, generator=generator),
        torch.randn(IMAGES, TOKENS, WIDTH, generator=generator),
        torch.rand(63, generator=generator),
    )


def flat_fusion(base: StableDiffusion, data) -> FlatFusion:
    latents, texts, feature = data
    fusion, history = train_fusion(
        base, encoded_dataset(latents, texts), {"four": feature}, PAPER.stage2, TrainContext(seed=0)
    )
    assert isinstance(fusion, FlatFusion) and history == []
    return fusion


def test_the_preset_has_the_values_of_the_authors_scripts() -> None:
    stage2, stage3, generation = PAPER.stage2, PAPER.stage3, PAPER.generation
    assert (PAPER.seed, PAPER.data.crop, PAPER.stage1.feature) == (0, "center", "raw")
    assert (stage2.lambda_, stage2.embedding_steps, stage2.embedding_learning_rate) == (0.7, 10, 1e-3)
    assert (stage2.fusion, stage2.fusion_steps, stage2.paper_loop) == ("flat", 0, True)
    assert (stage3.steps, stage3.learning_rate, stage3.weight_decay) == (20, 1e-6, 0)
    assert (generation.num_inference_steps, generation.guidance_scale, generation.eta) == (45, 3, 0)
    assert not generation.fuse_null_prompt and generation.autoguidance_scale == 1


def test_the_loop_equals_the_authors_step_by_step(base, data, monkeypatch) -> None:
    """The reference is written out with one dense matrix and one image at a time."""
    latents, texts, feature = data
    fusion = flat_fusion(base, data)

    # The dense matrix of the fusion, from its outputs for zeros and for unit vectors.
    size = TOKENS * WIDTH
    with torch.no_grad():
        fusion.feature.zero_()
        bias = fusion(torch.zeros(1, TOKENS, WIDTH), GESTURE_IDS[:1]).flatten()
        columns = [fusion(unit.view(1, TOKENS, WIDTH), GESTURE_IDS[:1]).flatten() - bias for unit in torch.eye(size)]
        for place in range(63):
            fusion.feature.copy_(torch.eye(63)[place])
            columns.append(fusion(torch.zeros(1, TOKENS, WIDTH), GESTURE_IDS[:1]).flatten() - bias)
        fusion.feature.copy_(feature)
    matrix = torch.stack(columns, dim=1)
    bound = (size + 63) ** -0.5
    assert matrix.abs().max() <= bound + 1e-6 and matrix.std() == pytest.approx(bound / 3**0.5, rel=0.01)

    alphas_cumprod = base.scheduler.alphas_cumprod
    untuned = {name: value.clone() for name, value in base.unet.state_dict().items()}
    unet, expected, losses = copy.deepcopy(base.unet), [], []

    def loss_of(stage: str, step: int, clean: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        noise, timestep = noise_and_timesteps((4, LATENT, LATENT), 0, stage, [("every image", step)], 1000)
        noisy = alphas_cumprod[timestep] ** 0.5 * clean + (1 - alphas_cumprod[timestep]) ** 0.5 * noise[0]
        return ((unet(noisy[None], timestep, h[None]).sample - noise) ** 2).mean()

    start = double_fusion(texts, fusion, 0.7, GESTURE_IDS)
    for clean, text, h in zip(latents, texts, start.clone(), strict=True):
        fused = (matrix @ torch.cat([text.flatten(), feature]) + bias).view(TOKENS, WIDTH)
        assert (h - (0.7 * text + 0.3 * fused)).abs().max() < 1e-6
        # Both go on from the same bits: where a gradient is as small as Adam's epsilon, a step magnifies rounding.
        h.requires_grad_(True)
        unet.requires_grad_(False)
        optimizer = torch.optim.Adam([h], lr=1e-3)
        for step in range(10):
            loss = loss_of("refine", step, clean, h)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        expected.append(h.detach().clone())
        unet.requires_grad_(True)
        optimizer = torch.optim.Adam(unet.parameters(), lr=1e-6)
        for step in range(20):
            loss = loss_of("unet", step, clean, expected[-1])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())

    context = TrainContext(seed=0, compute=PAPER.compute)
    unrefined, _ = optimize_all_embeddings(base, latents, Conditioning(start), list("abc"), PAPER.stage2, context)
    assert torch.equal(unrefined, start)  # Stage II waits for Stage III.

    refined: list[torch.Tensor] = []
    recorded_losses: list[float] = []
    refine, tune = interleaved.optimize_embeddings, interleaved.finetune_on_image

    def record_embeddings(*arguments, **settings):
        embeddings, each = refine(*arguments, **settings)
        refined.append(embeddings)
        recorded_losses.extend(each)
        return embeddings, each

    def record_finetuning(*arguments, **settings):
        recorded_losses.extend(each := tune(*arguments, **settings))
        return each

    monkeypatch.setattr(interleaved, "optimize_embeddings", record_embeddings)
    monkeypatch.setattr(interleaved, "finetune_on_image", record_finetuning)
    tuned, history = interleaved.train_interleaved(base, latents, start, PAPER.stage2, PAPER.stage3, context)

    assert len(recorded_losses) == len(losses) == IMAGES * 30 and recorded_losses == pytest.approx(losses, abs=1e-6)
    assert (torch.cat(refined) - torch.stack(expected)).abs().max() < 1e-6
    moved = 0.0
    for (name, value), reference in zip(tuned.items(), unet.state_dict().values(), strict=True):
        assert (value - reference).abs().max() < 1e-6, name
        moved = max(moved, float((value - untuned[name]).abs().max()))
    assert moved > 2e-5
    assert [row["step"] for row in history] == [1, 2, 3] and history[-1]["loss"] == recorded_losses[-1]


def test_an_interrupted_loop_ends_in_the_same_bits(base, data, tmp_path) -> None:
    latents, texts, _ = data
    stage3 = PAPER.stage3.model_copy(update={"checkpoint_every": 1, "steps": 2})

    def run(checkpoint: CrashingCheckpointStore):
        own = dataclasses.replace(base, unet=copy.deepcopy(base.unet))
        context = TrainContext(seed=0, compute=PAPER.compute, checkpoint=checkpoint)
        return interleaved.train_interleaved(own, latents, texts, PAPER.stage2, stage3, context)

    whole, history = run(CrashingCheckpointStore(tmp_path / "whole"))
    with pytest.raises(SimulatedKill):
        run(CrashingCheckpointStore(tmp_path / "cut", crash_after=2))
    again, same = run(CrashingCheckpointStore(tmp_path / "cut"))
    assert same == history
    assert all(torch.equal(one, two) for one, two in zip(whole.values(), again.values(), strict=True))


def test_the_flat_fusion_is_saved_without_its_weights(base, data, tmp_path) -> None:
    fusion = flat_fusion(base, data)
    fusion.save_pretrained(tmp_path / "fusion")
    assert sum(path.stat().st_size for path in (tmp_path / "fusion").iterdir()) < 2000
    loaded = load_fusion(tmp_path / "fusion")
    assert torch.equal(loaded(data[1], GESTURE_IDS), fusion(data[1], GESTURE_IDS)) and loaded.gestures == ("four",)


def test_the_papers_model_is_guided_by_the_plain_null_prompt(base, data, tmp_path) -> None:
    fusion = flat_fusion(base, data)
    options = PAPER.generation.model_copy(update={"num_inference_steps": 2}).sampler_defaults()
    model = build_pipeline(base, tuned=base.unet, fusion=fusion, **options)
    model.save_pretrained(tmp_path / "model")
    loaded = load_pipeline(tmp_path / "model")

    def generate(pipeline: Hand1000Pipeline):
        generator = [torch.Generator().manual_seed(1)]
        pipeline.set_progress_bar_config(disable=True)
        return pipeline("a red hand", generator=generator, output_type="np").images

    assert abs(generate(model).astype(int) - generate(loaded)).max() <= 1
    fused = build_pipeline(base, tuned=base.unet, fusion=fusion, **options | {"fuse_null_prompt": True})
    assert (generate(model) != generate(fused)).any()
    with pytest.raises(Hand1000Error, match="cannot be folded"):
        fold_fusion(loaded, 0.7, "four")


def test_the_center_crop_ignores_the_hand(tmp_path) -> None:
    Image.new("RGB", (300, 100)).save(tmp_path / "a.png")
    _, box = load_square(tmp_path / "a.png", 10, (0.3, 0.2, 0.2, 0.4), None, "center")
    assert box == pytest.approx((0, 0.2, 0.5, 0.4))
    assert load_square(tmp_path / "a.png", 10, (0.1, 0.2, 0.2, 0.4), None, "center")[1] is None


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("stage2", {"fusion_steps": 5}, "fusion_steps: the flat fusion is never trained; choose 0"),
        ("stage3", {"batch_size": 2}, "stage2.paper_loop requires stage3.batch_size: 1"),
        ("stage3", {"caption_dropout": 0.1}, "stage2.paper_loop requires stage3.caption_dropout: 0"),
    ],
)
def test_settings_that_the_paper_loop_lacks_are_refused(part, change, message) -> None:
    assert (PRESETS / "paper.yaml").is_file()
    values = PAPER.model_dump()
    values[part] |= change
    with pytest.raises(ValueError, match=message):
        Settings.model_validate(values)
