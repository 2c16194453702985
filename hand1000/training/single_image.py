"""A loop over the same few images, for what belongs to one image alone: its embedding, or a UNet of its own."""

import torch

from hand1000.core.rng import noise_and_timesteps
from hand1000.models.base_model import BaseModel
from hand1000.training.context import TrainContext
from hand1000.training.losses import diffusion_loss
from hand1000.training.precision import autocast_context


def optimize_embeddings(
    base: BaseModel,
    latents: torch.Tensor,
    start: torch.Tensor,
    keys: list[str],
    context: TrainContext,
    *,
    steps: int,
    learning_rate: float,
) -> tuple[torch.Tensor, list[float]]:
    """Optimise the embeddings of some images at once, each for itself: the losses are summed.

    Args:
        base: its UNet's weights must need no gradient.
        latents: scaled, (B, C, h, w).
        start: where the embeddings start, (B, L, D).
        keys: an image's draws are keyed by its key and the step.
        context: Seed and compute settings; the UNet is configured already.
        steps: Number of steps of Adam.
        learning_rate: Learning rate of Adam.

    Returns:
        The embeddings, (B, L, D) on the CPU, and the mean loss of every step.
    """
    device = base.unet.device
    embeddings = start.to(device, copy=True).requires_grad_(True)
    optimizer = torch.optim.Adam([embeddings], lr=learning_rate)
    latents, losses = latents.to(device), []
    for step in range(steps):
        noise, timesteps = noise_and_timesteps(
            tuple(latents.shape[1:]),
            context.seed,
            "refine",
            [(key, step) for key in keys],
            base.scheduler.config.num_train_timesteps,
        )
        with autocast_context(device, context.compute):
            errors = diffusion_loss(
                base.unet, base.scheduler, latents, embeddings, noise.to(device), timesteps.to(device)
            )
        optimizer.zero_grad(set_to_none=True)
        errors.sum().backward()
        optimizer.step()
        losses.append(errors.mean().item())
    return embeddings.detach().cpu(), losses


def finetune_on_image(
    base: BaseModel,
    latents: torch.Tensor,
    embeddings: torch.Tensor,
    key: str,
    context: TrainContext,
    *,
    steps: int,
    learning_rate: float,
    weight_decay: float,
    max_grad_norm: float,
) -> list[float]:
    """Tune the UNet in place on one image, with an optimiser of its own.

    Args:
        base: its UNet's weights must need a gradient.
        latents: scaled, (1, C, h, w).
        embeddings: frozen, (1, L, D).
        key: the draws are keyed by it and the step.
        context: Seed and compute settings; the UNet is configured already. The loss is not scaled for fp16.
        steps: Number of steps of AdamW.
        learning_rate: Learning rate of AdamW.
        weight_decay: Weight decay of AdamW.
        max_grad_norm: Norm to which the gradient is clipped.

    Returns:
        The loss of every step.
    """
    device = base.unet.device
    latents, embeddings = latents.to(device), embeddings.to(device)
    # A kernel a step, not ten a tensor: with one image the optimiser else takes a third of the time.
    optimizer = torch.optim.AdamW(base.unet.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True)
    losses = []
    for step in range(steps):
        noise, timesteps = noise_and_timesteps(
            tuple(latents.shape[1:]), context.seed, "unet", [(key, step)], base.scheduler.config.num_train_timesteps
        )
        with autocast_context(device, context.compute):
            loss = diffusion_loss(
                base.unet, base.scheduler, latents, embeddings, noise.to(device), timesteps.to(device)
            ).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if max_grad_norm < float("inf"):
            torch.nn.utils.clip_grad_norm_(base.unet.parameters(), max_grad_norm)
        optimizer.step()
        losses.append(loss.item())
    return losses
