"""What each step of Stage III learns from."""

from dataclasses import dataclass

import torch

from hand1000.config.settings import Stage3Settings
from hand1000.core.rng import noise_and_timesteps, shuffled_batch, torch_generator
from hand1000.training.losses import hand_loss_mask, min_snr_loss_weights
from hand1000.training.lr import sample_logit_normal_timesteps


@dataclass(frozen=True)
class TrainingSet:
    """Images and what each is conditioned on.

    Attributes:
        latents: scaled, (N, C, h, w).
        embeddings: frozen, (N, L, D): h* of Stage II, or h of a prior picture's caption.
        gestures: which of the K gestures each is of, (N,).
        boxes: of the hands, x, y, w, h relative to the picture, (N, 4).
    """

    latents: torch.Tensor
    embeddings: torch.Tensor
    gestures: torch.Tensor
    boxes: torch.Tensor


@dataclass(frozen=True)
class TrainingBatch:
    """The items of one step, of (B, ...) each.

    Attributes:
        latents: clean and scaled, (B, C, h, w).
        conditions: (B, L, D).
        noise: (B, C, h, w).
        timesteps: (B,).
        shares: what an item's squared error counts in the step's loss, (B,).
        weights: what each place of it counts in that, (B, 1, h, w).
    """

    latents: torch.Tensor
    conditions: torch.Tensor
    noise: torch.Tensor
    timesteps: torch.Tensor
    shares: torch.Tensor
    weights: torch.Tensor

    def take(self, indices: list[int], device: torch.device) -> "TrainingBatch":
        """Some of the items, on `device`."""
        return TrainingBatch(*(part[indices].to(device) for part in vars(self).values()))


def sample_batch(
    step: int,
    examples: TrainingSet,
    prior: TrainingSet | None,
    empty_embeddings: torch.Tensor,
    settings: Stage3Settings,
    scheduler,
    seed: int,
) -> TrainingBatch:
    """All items of step `step`, on the CPU: a batch of the gesture's, then one of the prior's if there is one.

    They are keyed by the step alone, so every process draws the same ones and computes its share of them.
    """
    parts = [_drawn(step, "unet", examples, settings.batch_size, 1.0, empty_embeddings, settings, scheduler, seed)]
    if prior is not None:
        count, weight = settings.prior.batch_size, settings.prior.weight
        parts.append(_drawn(step, "unet-prior", prior, count, weight, empty_embeddings, settings, scheduler, seed))
    return TrainingBatch(
        *(torch.cat(tensors) for tensors in zip(*(vars(part).values() for part in parts), strict=True))
    )


def _drawn(
    step: int,
    stage: str,
    examples: TrainingSet,
    count: int,
    weight: float,
    empty_embeddings: torch.Tensor,
    settings: Stage3Settings,
    scheduler,
    seed: int,
) -> TrainingBatch:
    batch = shuffled_batch(len(examples.latents), count, step, seed, stage)
    noise, timesteps = noise_and_timesteps(
        tuple(examples.latents.shape[1:]),
        seed,
        stage,
        [(step, place) for place in range(count)],
        scheduler.config.num_train_timesteps,
    )
    if settings.timestep_sampling == "logit_normal":
        timesteps = sample_logit_normal_timesteps(count, scheduler.config.num_train_timesteps, seed, stage, step)
    dropped = torch.rand(count, generator=torch_generator(seed, f"{stage}-dropout", step)) < settings.caption_dropout
    empty = empty_embeddings[examples.gestures[batch]]
    height, width = examples.latents.shape[2:]
    return TrainingBatch(
        latents=examples.latents[batch],
        conditions=torch.where(dropped[:, None, None], empty, examples.embeddings[batch]),
        noise=noise,
        timesteps=timesteps,
        shares=min_snr_loss_weights(scheduler, timesteps, settings.min_snr_gamma) * (weight / count),
        weights=hand_loss_mask(examples.boxes[batch], height, width, settings.hand_weight),
    )
