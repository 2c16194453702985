"""Training batches: clean latents with their noise, timesteps and conditioning.

Every draw is keyed by seed, stage and step alone, so an interrupted training and every worker rank draw the same batch.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from diffusers.training_utils import compute_density_for_timestep_sampling

from hand1000.core.rng import Key, noise_and_timesteps, shuffled_batch, torch_generator
from hand1000.models.encoding import encode_texts


@dataclass(frozen=True)
class NoisyBatch:
    """The input of one denoising loss; the latents are clean and scaled."""

    latents: torch.Tensor  # (B, C, h, w)
    encoder_hidden_states: torch.Tensor  # (B, L, D)
    noise: torch.Tensor  # (B, C, h, w)
    timesteps: torch.Tensor  # (B,)

    def to(self, device: torch.device) -> Self:
        """The batch on `device`."""
        return type(self)(*(tensor.to(device) for tensor in vars(self).values()))

    def select(self, indices: Sequence[int]) -> Self:
        """The items at `indices`."""
        return type(self)(*(tensor[indices] for tensor in vars(self).values()))


@dataclass(frozen=True)
class TrainingBatch(NoisyBatch):
    """All items of one step of Stage III, with the weight of each item's loss in the step's sum."""

    loss_weights: torch.Tensor  # (B,)

    @classmethod
    def concatenate(cls, batches: Sequence[Self]) -> Self:
        """The items of several batches, in order."""
        return cls(*(torch.cat(tensors) for tensors in zip(*(vars(batch).values() for batch in batches), strict=True)))


def sample_noisy_batch(
    latents: torch.Tensor,
    encoder_hidden_states: torch.Tensor,
    noise_scheduler,
    keys: Sequence[tuple[Key, ...]],
    *,
    seed: int,
    stage: str,
) -> NoisyBatch:
    """Draw the noise and a uniform timestep of each item, keyed by `seed`, `stage` and its own key.

    A key is for example (image, step). Equal keys draw equal noise.
    """
    num_train_timesteps = noise_scheduler.config.num_train_timesteps
    noise, timesteps = noise_and_timesteps(tuple(latents.shape[1:]), seed, stage, list(keys), num_train_timesteps)
    return NoisyBatch(latents, encoder_hidden_states, noise, timesteps)


@dataclass(frozen=True)
class TrainingSet:
    """Encoded images and their frozen conditioning.

    Attributes:
        latents: Scaled latents, (N, C, h, w).
        embeddings: Conditioning, (M, L, D): h* of Stage II, or the text embeddings of captions.
        null_embeddings: Conditioning of the empty prompt, which replaces a dropped caption, per gesture, (K, L, D).
        gesture_ids: Index of each image's gesture, 0..K-1, (N,).
        embedding_ids: Index of each image's conditioning, 0..M-1, (N,); None if image i has embedding i.
        file_names: Names of the N images, for messages; without them messages have the indices.
    """

    latents: torch.Tensor
    embeddings: torch.Tensor
    null_embeddings: torch.Tensor
    gesture_ids: torch.Tensor
    embedding_ids: torch.Tensor | None = None
    file_names: Sequence[str] = ()


def encode_training_set(latents: torch.Tensor, captions: Sequence[str], text_encoder, tokenizer) -> TrainingSet:
    """Build the training set of latents (N, C, h, w) and their captions; equal captions share one text embedding."""
    unique = sorted(set(captions))
    index = {caption: position for position, caption in enumerate(unique)}
    embeddings, null_embedding = (encode_texts(text_encoder, tokenizer, texts).cpu() for texts in (unique, [""]))
    return TrainingSet(
        latents,
        embeddings,
        null_embedding,
        gesture_ids=torch.zeros(len(captions), dtype=torch.long),
        embedding_ids=torch.tensor([index[caption] for caption in captions]),
    )


@dataclass(frozen=True)
class BatchSampler:
    """Draws the batch of any step; every epoch is a new permutation of the images.

    With probability `caption_dropout` an image is trained with the empty prompt. `stage` is part of every random key.
    """

    data: TrainingSet
    batch_size: int
    noise_scheduler: Any
    seed: int
    stage: str
    timestep_sampling: Literal["uniform", "logit_normal"]
    caption_dropout: float

    def indices(self, step: int) -> list[int]:
        """The images of step `step`, counted from 0."""
        return shuffled_batch(len(self.data.latents), self.batch_size, step, self.seed, self.stage)

    def sample(self, step: int) -> NoisyBatch:
        """The batch of step `step`, counted from 0, on the CPU."""
        data, indices = self.data, self.indices(step)
        keys = [(step, position) for position in range(self.batch_size)]
        embeddings = data.embeddings[indices if data.embedding_ids is None else data.embedding_ids[indices]]
        draws = torch.rand(self.batch_size, generator=torch_generator(self.seed, f"{self.stage}-dropout", step))
        dropped = (draws < self.caption_dropout)[:, None, None]
        encoder_hidden_states = torch.where(dropped, data.null_embeddings[data.gesture_ids[indices]], embeddings)
        inputs = (data.latents[indices], encoder_hidden_states, self.noise_scheduler, keys)
        batch = sample_noisy_batch(*inputs, seed=self.seed, stage=self.stage)
        if self.timestep_sampling == "uniform":
            return batch
        num_train_timesteps = self.noise_scheduler.config.num_train_timesteps
        timesteps = sample_logit_normal_timesteps(self.batch_size, num_train_timesteps, self.seed, self.stage, step)
        return dataclasses.replace(batch, timesteps=timesteps)


def sample_logit_normal_timesteps(
    count: int, num_train_timesteps: int, seed: int, stage: str, step: int
) -> torch.Tensor:
    """Sample timesteps with a normal logit, (count,) int64 (Esser et al., 2024).

    They concentrate where the shapes of an image are decided. Half of the timesteps of a uniform draw train only the
    color of a plain wall or the grain of the skin.
    """
    generator = torch_generator(seed, f"{stage}-timesteps", step)
    densities = compute_density_for_timestep_sampling("logit_normal", count, 0.0, 1.0, generator=generator)
    return (densities * num_train_timesteps).long().clamp(max=num_train_timesteps - 1)
