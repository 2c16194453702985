"""Stage III: the same weights whatever interrupts or divides the work, and what each choice of training does."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from hand1000.config.settings import Settings, Stage3Settings, load_settings
from hand1000.core.errors import Hand1000Error
from hand1000.core.progress import NullCheckpointStore, noop_callback
from hand1000.models.conditioning import Conditioning
from hand1000.models.stable_diffusion import StableDiffusion
from hand1000.training.batches import TrainingSet
from hand1000.training.checkpoint import Tensors, TrainingState, load_checkpoint, save_checkpoint
from hand1000.training.context import TrainContext
from hand1000.training.distributed import SINGLE_PROCESS
from hand1000.training.losses import diffusion_loss, min_snr_loss_weights
from hand1000.training.precision import build_optimizer
from hand1000.training.prior import Prior, generate_prior
from hand1000.training.stage3 import Stage3Trainer
from hand1000.training.stage3_io import load_trained_weights
from hand1000.training.validation import Validation, should_stop_early, split_validation
from tests.support.stage3_process import settings_with, training_set
from tests.support.tiny_models import (
    LATENT,
    TEXTS,
    TOKENS,
    WIDTH,
    CrashingCheckpointStore,
    SimulatedKill,
    fresh_base,
    tiny_base,
)

DEFAULT = load_settings("default")


def train(
    checkpoint: CrashingCheckpointStore,
    compute: dict | None = None,
    base: StableDiffusion | None = None,
    more: dict | None = None,
    **stage3,
) -> tuple[Tensors, list[dict]]:
    settings = settings_with(stage3, compute or {})
    context = TrainContext(seed=0, compute=settings.compute, checkpoint=checkpoint)
    return Stage3Trainer(base or fresh_base(), training_set(), settings.stage3, context, **(more or {})).train()


def max_weight_diff(first: Tensors, second: Tensors) -> float:
    """The largest difference of any weight."""
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).detach().abs().max()) for name in first)


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_an_interrupted_training_ends_in_the_same_bits(mode, tmp_path) -> None:
    whole, history = train(CrashingCheckpointStore(tmp_path / "whole"), training_mode=mode)
    for _ in range(2):
        with pytest.raises(SimulatedKill):
            train(CrashingCheckpointStore(tmp_path / "cut", crash_after=1), training_mode=mode)
    again, same = train(CrashingCheckpointStore(tmp_path / "cut"), training_mode=mode)
    assert max_weight_diff(whole, again) == 0 and history == same
    started = dict(fresh_base().unet.named_parameters())
    assert mode == "lora" or max_weight_diff(whole, started) > 1e-4


def test_averaged_weights_are_kept_unless_the_decay_is_zero(tmp_path) -> None:
    averaged, _ = train(CrashingCheckpointStore(tmp_path / "a"))
    base = fresh_base()
    last, _ = train(CrashingCheckpointStore(tmp_path / "b"), base=base, ema_decay=0.0)
    assert max_weight_diff(last, dict(base.unet.named_parameters())) == 0 < max_weight_diff(averaged, last)


@pytest.mark.parametrize(
    ("stage3", "compute", "within"),
    [
        ({"micro_batch_size": 2}, {}, 1e-5),
        ({}, {"gradient_checkpointing": True}, 1e-5),
        ({}, {"attention": "eager", "channels_last": False}, 1e-5),
        ({}, {"precision": "bf16"}, 5e-3),
        ({}, {"precision": "fp16"}, 5e-3),
    ],
)
def test_compute_settings_change_rounding_only(stage3, compute, within, tmp_path) -> None:
    _, plain = train(CrashingCheckpointStore(tmp_path / "a"))
    _, other = train(CrashingCheckpointStore(tmp_path / "b"), compute, **stage3)
    assert [row["loss"] for row in other] == pytest.approx([row["loss"] for row in plain], abs=within)


def test_the_micro_batch_size_may_change_after_a_restart(tmp_path) -> None:
    whole, _ = train(CrashingCheckpointStore(tmp_path / "whole"))
    with pytest.raises(SimulatedKill):
        train(CrashingCheckpointStore(tmp_path / "cut", crash_after=1))
    again, _ = train(CrashingCheckpointStore(tmp_path / "cut"), micro_batch_size=1)
    assert max_weight_diff(whole, again) < 1e-5
    assert "micro_batch_size" not in settings_with({}, {}).stage3.cache_key_fields()


def processes(folder: Path, count: int) -> tuple[Tensors, list[dict]]:
    """Stage III by `count` real processes that exchange gradients through gloo, as torch's launcher starts them."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    done = subprocess.run(
        [*launcher, "-m", "tests.support.stage3_process", str(folder)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return load_file(folder / "weights.safetensors"), json.loads((folder / "history.json").read_text())


def test_the_number_of_processes_changes_rounding_only(tmp_path) -> None:
    alone, history = train(CrashingCheckpointStore(tmp_path / "alone"))
    together, same = processes(tmp_path / "two", 2)
    assert max_weight_diff(alone, together) < 1e-5
    assert [row["loss"] for row in same] == pytest.approx([row["loss"] for row in history], abs=1e-5)
    # The state that the two saved after the fourth step, with one process to the end.
    assert json.loads((tmp_path / "two" / "checkpoint" / "state.json").read_text())["step"] == 4
    again, _ = train(CrashingCheckpointStore(tmp_path / "two" / "checkpoint"))
    assert max_weight_diff(alone, again) < 1e-5


def test_a_batch_too_small_to_be_shared_is_refused(tmp_path) -> None:
    from hand1000.training.distributed import DistributedContext

    with pytest.raises(Hand1000Error, match="stage3.batch_size: 4 images cannot be shared by 5 processes"):
        train(CrashingCheckpointStore(tmp_path), more={"distributed": DistributedContext(0, 5)})


def test_min_snr_weights_are_bounded_ratios() -> None:
    base, timesteps = tiny_base(), torch.tensor([5, 400, 990])
    kept = base.scheduler.alphas_cumprod[timesteps]
    ratio = kept / (1 - kept)
    expected = torch.minimum(ratio, torch.tensor(5.0)) / ratio
    if base.scheduler.config.prediction_type == "v_prediction":
        expected = torch.minimum(ratio, torch.tensor(5.0)) / (ratio + 1)
    assert torch.allclose(min_snr_loss_weights(base.schedule, timesteps, 5.0), expected)
    assert min_snr_loss_weights(base.schedule, timesteps, 0.0).tolist() == [1, 1, 1]


def test_state_of_the_loss_scaler_is_restored(tmp_path) -> None:
    store = CrashingCheckpointStore(tmp_path / "checkpoint", crash_after=1)
    with pytest.raises(SimulatedKill):
        train(store, {"precision": "fp16"})
    settings = settings_with({}, {"precision": "fp16"})
    context = TrainContext(seed=0, compute=settings.compute, checkpoint=store)
    trainer = Stage3Trainer(fresh_base(), training_set(), settings.stage3, context)
    trainer.load_checkpoint()
    state = trainer.scaler.tensors()
    assert (state["scale"].item(), state["_growth_tracker"].item()) != (65536.0, 0)


def test_every_step_has_the_scheduled_learning_rate() -> None:
    settings = settings_with({"warmup_steps": 4}, {}).stage3
    trainer = Stage3Trainer(fresh_base(), training_set(), settings, TrainContext(seed=0))
    for step in range(2):
        trainer.train_step(trainer.sample_batch(step))
        assert trainer.optimizer.param_groups[0]["lr"] == settings.learning_rate * (step + 1) / 4


def test_clipped_gradients_move_the_weights_less(tmp_path) -> None:
    started = dict(fresh_base().unet.named_parameters())
    # Adam's epsilon is 1e-8: of smaller gradients it makes smaller steps.
    free, clipped = (
        max_weight_diff(train(CrashingCheckpointStore(tmp_path / str(norm)), max_grad_norm=norm)[0], started)
        for norm in (1.0, 1e-9)
    )
    assert clipped < 0.5 * free


def test_losses_of_a_batch_have_min_snr_weights() -> None:
    base = fresh_base()
    settings = settings_with({"min_snr_gamma": 5.0}, {}).stage3
    batch = Stage3Trainer(base, training_set(), settings, TrainContext(seed=0)).sample_batch(0)
    expected = min_snr_loss_weights(base.schedule, batch.timesteps, 5.0) / settings.batch_size
    assert torch.allclose(batch.loss_weights, expected)


def test_a_prior_of_the_base_model_changes_the_weights(tmp_path) -> None:
    from hand1000.pipelines.pipeline_hand1000 import build_pipeline

    options = DEFAULT.generation.model_copy(update={"num_inference_steps": 2}).sampler_defaults()
    pipeline = build_pipeline(tiny_base(), **options)
    options = {"seed": 0, "checkpoint": NullCheckpointStore(), "on_progress": noop_callback}
    generated = generate_prior(pipeline, TEXTS, 3, batch_size=2, **options)
    alone = generate_prior(pipeline, TEXTS, 3, batch_size=1, **options)
    assert generated.latents.shape == (3, 4, LATENT, LATENT) and torch.allclose(
        generated.latents, alone.latents, atol=1e-4
    )
    generated.save(tmp_path)
    prior = Prior.load(tmp_path)
    assert torch.equal(prior.latents, generated.latents) and prior.text_embeddings.shape == (3, TOKENS, WIDTH)

    without, _ = train(CrashingCheckpointStore(tmp_path / "a"))
    conditioning, null_conditioning = Conditioning(prior.text_embeddings), training_set().null_conditioning
    gesture_ids = torch.zeros(3, dtype=torch.long)
    pulled = {"prior": TrainingSet(prior.latents, conditioning, null_conditioning, gesture_ids)}
    beside, _ = train(CrashingCheckpointStore(tmp_path / "b"), more=pulled)
    idle = {"images": 3, "batch_size": 2, "weight": 0}
    weightless, _ = train(CrashingCheckpointStore(tmp_path / "c"), more=pulled, prior=idle)
    assert max_weight_diff(without, beside) > 1e-4 > max_weight_diff(without, weightless)


def test_the_prior_adds_its_weighted_mean_to_the_loss() -> None:
    settings = settings_with({"prior": {"images": 5, "batch_size": 2, "weight": 0.5}}, {}).stage3
    base, context = fresh_base(), TrainContext(seed=0)
    trainer = Stage3Trainer(base, training_set(), settings, context, prior=training_set())
    batch = trainer.sample_batch(0)
    losses = diffusion_loss(base, batch, context.compute, reduction="none")
    assert len(losses) == 6
    trainer.train_step(batch)
    assert trainer.history[0]["loss"] == pytest.approx(
        float((losses[:4].mean() + 0.5 * losses[4:].mean()).detach()), abs=1e-5
    )


def test_nobody_is_in_both_training_and_validation() -> None:
    people = ["a", "b", "a", "c", "c", "d"]
    training, held_out = split_validation(people, 2, seed=0)
    assert sorted(training + held_out) == list(range(6)) and len(held_out) >= 2
    assert not {people[index] for index in training} & {people[index] for index in held_out}
    assert split_validation(people, 0, seed=0) == (list(range(6)), [])
    with pytest.raises(Hand1000Error, match="leave none to train on"):
        split_validation(["a", "a"], 1, seed=0)


def validation(folder: Path, **changes) -> tuple[dict, Stage3Settings]:
    settings = {"images": 2, "every": 2, "images_drawn": 1, "patience": 0} | changes
    folder.mkdir(parents=True, exist_ok=True)
    validator = Validation(
        latents=training_set().latents[:2],
        conditioning=training_set().conditioning[:2],
        settings=settings_with({"validation": settings}, {}).stage3.validation,
        generate=lambda: [Image.new("RGB", (8, 8), "red")],
        folder=folder,
    )
    return {"more": {"validation": validator}, "validation": settings}


def test_validation_continues_after_an_interruption(tmp_path) -> None:
    whole, history = train(CrashingCheckpointStore(tmp_path / "a"), **validation(tmp_path / "whole"))
    measured = {row["step"]: row["validation_loss"] for row in history if "validation_loss" in row}
    assert list(measured) == [2, 4, 6]
    assert sorted(path.name for path in (tmp_path / "whole").iterdir()) == ["000002.png", "000004.png", "000006.png"]
    with pytest.raises(SimulatedKill):
        train(CrashingCheckpointStore(tmp_path / "b", crash_after=2), **validation(tmp_path / "cut"))
    again, same = train(CrashingCheckpointStore(tmp_path / "b"), **validation(tmp_path / "again"))
    assert same == history and max_weight_diff(whole, again) == 0
    assert len(list((tmp_path / "again").iterdir())) == 3
    # Validation does not change the training.
    assert max_weight_diff(whole, train(CrashingCheckpointStore(tmp_path / "c"))[0]) == 0


def test_validation_measures_the_averaged_weights(tmp_path) -> None:
    settings = settings_with({}, {})
    options = validation(tmp_path / "images", images_drawn=0)
    weights, history = train(CrashingCheckpointStore(tmp_path / "a"), **options, learning_rate=1e-2)
    base = fresh_base()
    load_trained_weights(base.unet, settings.stage3, weights)
    context = TrainContext(seed=0, compute=settings.compute)
    loss = options["more"]["validation"].loss(base, context, 4, SINGLE_PROCESS)
    assert history[-1]["validation_loss"] == pytest.approx(loss, abs=1e-5)


def test_early_stopping_keeps_the_best_weights(tmp_path) -> None:
    worse = {"learning_rate": 0.5, "steps": 40, "ema_decay": 0.0, "warmup_steps": 0}
    validator = validation(tmp_path / "p", every=1, patience=2, images_drawn=0)
    best, history = train(CrashingCheckpointStore(tmp_path / "a"), **validator, **worse)
    losses = [row["validation_loss"] for row in history]
    assert len(losses) < 40 and min(losses) == losses[-3]
    cut, _ = train(CrashingCheckpointStore(tmp_path / "b"), **worse | {"steps": len(losses) - 2})
    assert max_weight_diff(best, cut) < 1e-6
    store = tmp_path / "c"
    with pytest.raises(SimulatedKill):
        train(CrashingCheckpointStore(store, len(losses) - 1), **validator, **worse, checkpoint_every=1)
    resumed, _ = train(CrashingCheckpointStore(store), **validator, **worse, checkpoint_every=1)
    assert max_weight_diff(best, resumed) == 0


def test_patience_counts_validations_without_improvement() -> None:
    rows = [{"validation_loss": loss} for loss in (3.0, 2.0, 2.5, 2.0)]
    assert should_stop_early(rows, 2) and not should_stop_early(rows, 3) and not should_stop_early(rows, 0)
    assert not should_stop_early([{"loss": 1.0}], 1)


def test_an_untrained_adapter_has_no_effect(tmp_path) -> None:
    base = fresh_base()
    weights, _ = train(CrashingCheckpointStore(tmp_path / "a"), base=base, training_mode="lora", steps=0)
    unet, noise = fresh_base().unet, torch.randn(1, 4, LATENT, LATENT)
    condition = training_set().conditioning[:1].tokens
    before = unet(noise, 5, condition).sample
    settings = settings_with({"training_mode": "lora"}, {}).stage3
    load_trained_weights(unet, settings, weights)
    assert torch.equal(unet(noise, 5, condition).sample, before)
    assert all("lora" in name for name in weights)
    targets = {"rank": 2, "alpha": 2, "targets": ["to_q", "to_x"]}
    with pytest.raises(Hand1000Error, match="stage3.lora.targets: the denoiser has no layer whose name ends with to_x"):
        train(CrashingCheckpointStore(tmp_path / "b"), training_mode="lora", lora=targets)


def test_adamw_8bit_needs_a_gpu_and_bitsandbytes() -> None:
    """There is no GPU here, so only the errors are tested."""
    with pytest.raises(Hand1000Error, match="stage3.optimizer: adamw_8bit needs"):
        build_optimizer("adamw_8bit", [torch.nn.Parameter(torch.zeros(1))], learning_rate=1e-3, weight_decay=0.0)


def test_optimizer_state_of_integers_and_bytes_is_restored(tmp_path) -> None:
    """The state is in the form of bitsandbytes' 8-bit AdamW."""

    class Bytes(torch.optim.SGD):
        pass

    weight = torch.nn.Parameter(torch.zeros(3))
    optimizer = Bytes([weight], lr=0.1)
    optimizer.state[weight] = {"step": 7, "state1": torch.tensor([1, 2, 255], dtype=torch.uint8)}
    store = CrashingCheckpointStore(tmp_path / "checkpoint")
    save_checkpoint(store, TrainingState(step=7), optimizer=optimizer)
    restored = Bytes([weight], lr=0.1)
    assert load_checkpoint(store, optimizer=restored).step == 7
    moments = restored.state_dict()["state"][0]
    assert moments["step"] == 7 and moments["state1"].tolist() == [1, 2, 255]


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        (
            "stage3",
            {"validation": {"images": 0, "every": 1, "images_drawn": 4, "patience": 0}},
            "and patience need validation images",
        ),
        ("stage3", {"lora": {"rank": 0, "alpha": 1, "targets": ["to_q"]}}, "greater than or equal to 1"),
        ("compute", {"precision": "fp8"}, "fp32"),
    ],
)
def test_settings_out_of_range_are_named(section, change, message) -> None:
    values = DEFAULT.model_dump()
    values[section] |= change
    with pytest.raises(ValueError, match=message):
        Settings.model_validate(values)
