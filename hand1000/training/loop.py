"""The loop of a training from nothing: one loss a step, saved on the way, averaged at the end."""

from collections.abc import Callable
from typing import Any

import torch

from hand1000.config.pretraining import TrainingSchedule
from hand1000.training.checkpoint import EMA, load_checkpoint, save_checkpoint
from hand1000.training.context import TrainContext
from hand1000.training.lr import get_lr

LOG_EVERY = 50
"""Steps that one row of the history averages over; checkpoints fall on such rows."""


def train_with_ema(
    module: torch.nn.Module,
    length: TrainingSchedule,
    loss_at: Callable[[int], torch.Tensor],
    context: TrainContext,
) -> tuple[Any, list[dict]]:
    """Train `module` in place on the loss of each step; returns it with its averaged weights, and the history."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.0, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    average = EMA(module, length.ema_decay)
    modules = {"module": module}
    step, kept, history = load_checkpoint(context.checkpoint, modules=modules, optimizer=optimizer)
    average.load(kept.get("average", {}))
    losses: list[float] = []
    while step < length.steps:
        for group in optimizer.param_groups:
            group["lr"] = get_lr(
                step, peak=length.learning_rate, steps=length.steps, warmup_steps=length.warmup_steps, decay="cosine"
            )
        loss = loss_at(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        step += 1
        average.update(step)
        losses.append(loss.item())
        context.on_progress(step, length.steps, {"loss": losses[-1]})
        if step % LOG_EVERY == 0 or step == length.steps:
            history.append({"step": step, "loss": sum(losses) / len(losses)})
            losses = []
            # Rounded up to a row of the history, so that a continued run logs what an undisturbed one logs.
            if step % (LOG_EVERY * max(1, length.checkpoint_every // LOG_EVERY)) == 0:
                kept = {"average": average.tensors}
                save_checkpoint(
                    context.checkpoint, step=step, tensors=kept, modules=modules, optimizer=optimizer, history=history
                )
    module.load_state_dict(average.tensors, strict=False)
    return module.requires_grad_(False).eval(), history
