"""Training loop of a network from scratch, with an averaged copy of its weights."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from hand1000.config.pretraining import TrainingSchedule
from hand1000.core.progress import report_step
from hand1000.training.checkpoint import CheckpointWriter, load_checkpoint
from hand1000.training.context import TrainContext
from hand1000.training.ema import EMA
from hand1000.training.finite import all_finite, not_finite_error
from hand1000.training.lr import get_lr

LOG_EVERY = 50
"""Steps that one row of the history averages over."""


def train_with_ema(
    module: torch.nn.Module,
    schedule: TrainingSchedule,
    loss_at: Callable[[int], torch.Tensor],
    indices_at: Callable[[int], Sequence[int]],
    context: TrainContext,
) -> tuple[Any, list[dict]]:
    """Train `module` in place with AdamW.

    Args:
        module: The module.
        schedule: Number of steps, learning rate and average.
        loss_at: Returns the loss of a step, counted from 0. It must depend on the step and the weights alone, so that a
            training continues to the same bits.
        indices_at: Returns the positions of a step's images in the training set, which an error names.
        context: Seed, checkpoint and progress.

    Returns:
        The module, frozen and in evaluation mode, and the mean loss of every `LOG_EVERY` steps.

    Raises:
        Hand1000Error: The loss or a weight is not finite.
    """
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.0, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    ema = EMA(module, schedule.ema_decay)
    modules = {"module": module}
    targets = {"average": ema.tensors}
    state = load_checkpoint(context.checkpoint, modules=modules, optimizer=optimizer, targets=targets)
    losses: list[float] = state.tensors.get("losses", {}).get("row", torch.empty(0)).tolist()
    checkpoint_step = state.step

    def save(*, wait: bool = False) -> None:
        nonlocal checkpoint_step
        # The losses of an unfinished row, so that a continued run logs what an uninterrupted run logs.
        row = {"losses": {"row": torch.tensor(losses, dtype=torch.float64)}} if losses else {}
        state.tensors = {"average": ema.tensors} | row
        writer.save(state, modules=modules, optimizer=optimizer, wait=wait)
        checkpoint_step = state.step

    save_now = partial(save, wait=True)
    with CheckpointWriter(context.checkpoint) as writer:
        while state.step < schedule.steps:
            for group in optimizer.param_groups:
                group["lr"] = get_lr(state.step, schedule, "cosine")
            loss = loss_at(state.step)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            state.step += 1
            ema.update(state.step)
            losses.append(loss.item())
            if not math.isfinite(losses[-1]) or not all_finite(module.parameters()):
                batch = [f"#{index}" for index in indices_at(state.step - 1)]
                raise not_finite_error("the loss or a weight", state.step, batch, checkpoint_step)
            loss_of_step = losses[-1]
            if state.step % LOG_EVERY == 0 or state.step == schedule.steps:
                state.history.append({"step": state.step, "loss": sum(losses) / len(losses)})
                losses.clear()
            writer.raise_error()
            report_step(context.on_progress, state.step, schedule.steps, {"loss": loss_of_step}, save=save_now)
            if state.step % (LOG_EVERY * max(1, schedule.checkpoint_every // LOG_EVERY)) == 0:
                save()
    module.load_state_dict(ema.tensors, strict=False)
    return module.requires_grad_(False).eval(), state.history
