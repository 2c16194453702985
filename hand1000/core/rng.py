"""Random numbers that depend on their key alone, never on what was drawn before.

A draw is keyed by (seed, stage, image or step), so a stage that resumes draws the same numbers, and so does a shard.
"""

import hashlib
import json
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch

Key = int | str
_compact = json.JSONEncoder(separators=(",", ":"))


def derived_seed(seed: int, *key: Key) -> int:
    """Return a 63-bit seed for the draw named by `key` in the run with `seed`."""
    return _first_bits(hashlib.sha256(_json([seed, *key])))


def derived_seeds(seed: int, *key: Key) -> Callable[[Key], int]:
    """Return the function `last -> derived_seed(seed, *key, last)`, which is fast for millions of draws."""
    start = hashlib.sha256(_json([seed, *key])[:-1] + b",")

    def derived(last: Key) -> int:
        text = start.copy()
        text.update(_json(last) + b"]")
        return _first_bits(text)

    return derived


def _json(value: Key | list[Key]) -> bytes:
    return _compact.encode(value).encode()


def _first_bits(text: "hashlib._Hash") -> int:
    return int.from_bytes(text.digest()[:8], "big") >> 1


def torch_generator(seed: int, *key: Key) -> "torch.Generator":
    """Return a generator on the CPU, so that every device gets the same draws."""
    import torch

    return torch.Generator("cpu").manual_seed(derived_seed(seed, *key))


def numpy_generator(seed: int, *key: Key) -> "np.random.Generator":
    """Return numpy's generator of the key."""
    import numpy as np

    return np.random.default_rng(derived_seed(seed, *key))


def noise_and_timesteps(
    shape: tuple[int, ...], seed: int, stage: str, keys: list[tuple[Key, ...]], num_train_timesteps: int
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Sample the noise and the timestep of each item of a training batch.

    Args:
        shape: Shape of one item's latents, (C, H, W).
        seed: Random seed of the run.
        stage: Name of the stage.
        keys: Key of each item, such as (image, step).
        num_train_timesteps: Number of timesteps, of which one is sampled uniformly per item.

    Returns:
        Noise (B, C, H, W), float32, and timesteps (B,), int64, both on the CPU.
    """
    import torch

    noise, timesteps = [], []
    for key in keys:
        generator = torch_generator(seed, stage, *key)
        timesteps.append(torch.randint(num_train_timesteps, (), generator=generator))
        noise.append(torch.randn(shape, generator=generator))
    return torch.stack(noise), torch.stack(timesteps)


def shuffled_batch(count: int, batch_size: int, step: int, seed: int, stage: str) -> list[int]:
    """Return the item indices of step `step`, counted from 0; every epoch visits the `count` items in a new order."""
    batch = []
    for position in range(step * batch_size, (step + 1) * batch_size):
        epoch, place = divmod(position, count)
        batch.append(_epoch_order(count, seed, stage, epoch)[place])
    return batch


@lru_cache(maxsize=4)
def _epoch_order(count: int, seed: int, stage: str, epoch: int) -> list[int]:
    import torch

    return torch.randperm(count, generator=torch_generator(seed, stage, "order", epoch)).tolist()
