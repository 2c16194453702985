"""Training loops for what belongs to a single image: its embedding, or a denoiser of its own."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hand1000.core.interruption import raise_if_interrupted
from hand1000.models.backbone import Backbone
from hand1000.models.conditioning import Conditioning
from hand1000.training.batches import NoisyBatch, sample_noisy_batch
from hand1000.training.context import TrainContext
from hand1000.training.cuda_graphs import TokenLosses
from hand1000.training.finite import LossScaler, all_finite, not_finite_error
from hand1000.training.losses import diffusion_loss


@dataclass(frozen=True)
class FinetuneOptions:
    """Options of AdamW; `max_grad_norm` is the norm to which the gradient is clipped."""

    steps: int
    learning_rate: float
    weight_decay: float = 0.0
    max_grad_norm: float = float("inf")


def optimize_embeddings(
    base: Backbone,
    latents: torch.Tensor,
    start: Conditioning,
    keys: Sequence[str],
    context: TrainContext,
    *,
    steps: int,
    learning_rate: float,
) -> tuple[torch.Tensor, list[float]]:
    """Optimize the embeddings of several images at once; see `EmbeddingOptimizer`."""
    return EmbeddingOptimizer(base, context, steps, learning_rate).optimize(latents, start, keys)


class EmbeddingOptimizer:
    """Optimizes embeddings with Adam, each for its own image, of one batch of images after the other.

    Args:
        base: Base model whose denoiser is configured and requires no gradient.
        context: Seed and compute settings.
        steps: Number of steps.
        learning_rate: Learning rate.
    """

    def __init__(self, base: Backbone, context: TrainContext, steps: int, learning_rate: float) -> None:
        self._base, self._context = base, context
        self._steps, self._learning_rate = steps, learning_rate
        self._token_losses = TokenLosses(base, context.compute)

    def optimize(
        self, latents: torch.Tensor, start: Conditioning, keys: Sequence[str]
    ) -> tuple[torch.Tensor, list[float]]:
        """Optimize the embeddings of a batch.

        The losses are summed, so that an image's gradient does not depend on the batch.

        Args:
            latents: Scaled latents, (B, C, h, w).
            start: Conditioning of the B images, whose tokens are the initial embeddings.
            keys: Key of each image's noise, combined with the step.

        Returns:
            The embeddings, (B, L, D) on the CPU, and the mean loss of every step, which is not finite where fp16
            overflowed and the step was skipped.

        Raises:
            Hand1000Error: An embedding or, where the precision has no remedy, its gradient is not finite.
        """
        base, context = self._base, self._context
        conditioning = start.to(base.device, copy=True)
        embeddings = conditioning.tokens.requires_grad_(True)
        latents, history = latents.to(base.device), []
        optimizer = torch.optim.Adam([embeddings], lr=self._learning_rate)
        scaler = LossScaler(base.device, context.compute)
        for step in range(self._steps):
            batch = _sample(base, latents, conditioning, [(key, step) for key in keys], context, "refine")
            losses = self._token_losses(batch)
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(losses.sum()).backward()
            scaler.step(optimizer, [embeddings])
            if scaler.failed or not all_finite([embeddings]):
                raise not_finite_error("an embedding", step + 1, keys)
            history.append(losses.mean().item())
            raise_if_interrupted()
        return embeddings.detach().cpu(), history


def finetune_on_image(
    base: Backbone,
    latents: torch.Tensor,
    conditioning: Conditioning,
    key: str,
    context: TrainContext,
    options: FinetuneOptions,
) -> list[float]:
    """Fine-tune the denoiser in place on one image, with an optimizer of its own, and return the loss of every step.

    Args:
        base: Base model whose denoiser is configured and requires a gradient.
        latents: Scaled latents, (1, C, h, w).
        conditioning: Frozen conditioning of the image.
        key: Key of the noise, combined with the step.
        context: Seed and compute settings; fp16 is not supported because the loss is not scaled.
        options: Steps, learning rate, weight decay and clipping.

    Raises:
        Hand1000Error: The loss or a weight is not finite.
    """
    parameters, history = list(base.denoiser.parameters()), []
    # A fused kernel: with one image an unfused optimizer takes a third of the time.
    optimizer = torch.optim.AdamW(parameters, lr=options.learning_rate, weight_decay=options.weight_decay, fused=True)
    for step in range(options.steps):
        batch = _sample(base, latents, conditioning, [(key, step)], context, "unet")
        loss = diffusion_loss(base, batch, context.compute)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if options.max_grad_norm < float("inf"):
            torch.nn.utils.clip_grad_norm_(parameters, options.max_grad_norm)
        optimizer.step()
        history.append(loss.item())
        if not math.isfinite(history[-1]) or not all_finite(parameters):
            raise not_finite_error("the loss or a weight", step + 1, [key])
        raise_if_interrupted()
    return history


def _sample(
    base: Backbone,
    latents: torch.Tensor,
    conditioning: Conditioning,
    keys: list[tuple[str, int]],
    context: TrainContext,
    stage: str,
) -> NoisyBatch:
    """Draw each image's own noise; the batch is on the denoiser's device."""
    batch = sample_noisy_batch(latents, conditioning, base.schedule, keys, seed=context.seed, stage=stage)
    return batch.to(base.device)
