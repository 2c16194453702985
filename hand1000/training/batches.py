"""Training batches: clean latents with their noise, timesteps and conditioning.

Every draw is keyed by seed, stage and step alone, so an interrupted training and every worker rank draw the same batch.
"""

import dataclasses
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeVar

import torch
from diffusers.training_utils import compute_density_for_timestep_sampling

from hand1000.core.rng import Key, noise_and_timesteps, shuffled_batch, torch_generator
from hand1000.models.conditioning import Conditioning
from hand1000.models.schedule import NoiseSchedule

BatchT = TypeVar("BatchT")


@dataclass(frozen=True)
class NoisyBatch:
    """The input of one denoising loss; the latents are clean and scaled."""

    latents: torch.Tensor  # (B, C, h, w)
    conditioning: Conditioning  # of B images
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
        columns: Any = zip(*(vars(batch).values() for batch in batches), strict=True)
        return cls(*(_cat(column) for column in columns))


def _cat(parts: Sequence[Any]) -> Any:
    return Conditioning.cat(parts) if isinstance(parts[0], Conditioning) else torch.cat(list(parts))


def sample_noisy_batch(
    latents: torch.Tensor,
    conditioning: Conditioning,
    schedule: NoiseSchedule,
    keys: Sequence[tuple[Key, ...]],
    *,
    seed: int,
    stage: str,
) -> NoisyBatch:
    """Draw the noise and a uniform timestep of each item, keyed by `seed`, `stage` and its own key.

    A key is for example (image, step). Equal keys draw equal noise.
    """
    shape = tuple(latents.shape[1:])
    noise, indices = noise_and_timesteps(shape, seed, stage, list(keys), schedule.num_train_timesteps)
    return NoisyBatch(latents, conditioning, noise, schedule.to_timesteps(indices))


@dataclass(frozen=True)
class TrainingSet:
    """Encoded images and their frozen conditioning.

    Attributes:
        latents: Scaled latents, (N, C, h, w).
        conditioning: M conditionings: h* of Stage II, or the text embeddings of captions.
        null_conditioning: That of the null prompt, which replaces a dropped caption, for each of K gestures.
        gesture_ids: Index of each image's gesture, 0..K-1, (N,).
        conditioning_ids: Index of each image's conditioning, 0..M-1, (N,); None if image i has conditioning i.
        file_names: Names of the N images, for messages; without them messages have the indices.
    """

    latents: torch.Tensor
    conditioning: Conditioning
    null_conditioning: Conditioning
    gesture_ids: torch.Tensor
    conditioning_ids: torch.Tensor | None = None
    file_names: Sequence[str] = ()


def encode_training_set(
    latents: torch.Tensor, captions: Sequence[str], encode_text: Callable[[Sequence[str]], Conditioning]
) -> TrainingSet:
    """Build the training set of latents (N, C, h, w) and their captions; equal captions share one conditioning."""
    unique = sorted(set(captions))
    index = {caption: position for position, caption in enumerate(unique)}
    conditioning, null_conditioning = (encode_text(texts).to("cpu") for texts in (unique, [""]))
    return TrainingSet(
        latents,
        conditioning,
        null_conditioning,
        gesture_ids=torch.zeros(len(captions), dtype=torch.long),
        conditioning_ids=torch.tensor([index[caption] for caption in captions]),
    )


@dataclass(frozen=True)
class BatchSampler:
    """Draws the batch of any step; every epoch is a new permutation of the images.

    With probability `caption_dropout` an image is trained with the empty prompt. `stage` is part of every random key.
    """

    data: TrainingSet
    batch_size: int
    schedule: NoiseSchedule
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
        rows = indices if data.conditioning_ids is None else data.conditioning_ids[indices]
        draws = torch.rand(self.batch_size, generator=torch_generator(self.seed, f"{self.stage}-dropout", step))
        null_conditioning = data.null_conditioning[data.gesture_ids[indices]]
        conditioning = Conditioning.where(draws < self.caption_dropout, null_conditioning, data.conditioning[rows])
        inputs = (data.latents[indices], conditioning, self.schedule, keys)
        batch = sample_noisy_batch(*inputs, seed=self.seed, stage=self.stage)
        if self.timestep_sampling == "uniform":
            return batch
        count = self.schedule.num_train_timesteps
        sampled = sample_logit_normal_timesteps(self.batch_size, count, self.seed, self.stage, step)
        return dataclasses.replace(batch, timesteps=self.schedule.to_timesteps(sampled))


def sample_ahead(sample: Callable[[int], BatchT], steps: range, *, in_thread: bool) -> Generator[BatchT, None, None]:
    """Yield the batch of each step; with `in_thread`, the next one is sampled while a GPU computes."""
    if not in_thread:
        yield from map(sample, steps)
        return
    with ThreadPoolExecutor(max_workers=1) as executor:
        following: Future[BatchT] | None = None
        for step in steps:
            batch = sample(step) if following is None else following.result()
            following = executor.submit(sample, step + 1)
            yield batch


def sample_logit_normal_timesteps(
    count: int, num_train_timesteps: int, seed: int, stage: str, step: int
) -> torch.Tensor:
    """Sample indices of timesteps with a normal logit, (count,) int64 (Esser et al., 2024).

    They concentrate where the shapes of an image are decided. Half of the timesteps of a uniform draw train only the
    color of a plain wall or the grain of the skin.
    """
    generator = torch_generator(seed, f"{stage}-timesteps", step)
    densities = compute_density_for_timestep_sampling("logit_normal", count, 0.0, 1.0, generator=generator)
    return (densities * num_train_timesteps).long().clamp(max=num_train_timesteps - 1)
