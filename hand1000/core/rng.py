"""Random draws that depend on what they are for, never on what was drawn before.

A draw is keyed by (seed, stage, image or step), so a stage stopped anywhere and started again makes the same draws,
and a shard makes those that a single process would make.
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
    """A 63-bit seed for the draw named by `key` in the run seeded with `seed`."""
    return _first_bits(hashlib.sha256(_json([seed, *key])))


def derived_seeds(seed: int, *key: Key) -> Callable[[Key], int]:
    """What `derived_seed(seed, *key, last)` is for each `last`; for draws by the million."""
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
    """A generator on the CPU, whatever device computes, so that every device sees the same draws."""
    import torch

    return torch.Generator("cpu").manual_seed(derived_seed(seed, *key))


def numpy_generator(seed: int, *key: Key) -> "np.random.Generator":
    """The same for numpy."""
    import numpy as np

    return np.random.default_rng(derived_seed(seed, *key))


def noise_and_timesteps(
    shape: tuple[int, ...], seed: int, stage: str, keys: list[tuple[Key, ...]], num_train_timesteps: int
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """The noise and the timestep that each item of a batch is trained with.

    Args:
        shape: of one item's latents, (C, H, W).
        seed: of the run.
        stage: the name of the stage.
        keys: one key an item, such as (image, step).
        num_train_timesteps: timesteps are uniform on 0..num_train_timesteps-1.

    Returns:
        noise (B, C, H, W), float32, and timesteps (B,), int64, both on the CPU.
    """
    import torch

    noise, timesteps = [], []
    for key in keys:
        generator = torch_generator(seed, stage, *key)
        timesteps.append(torch.randint(num_train_timesteps, (), generator=generator))
        noise.append(torch.randn(shape, generator=generator))
    return torch.stack(noise), torch.stack(timesteps)


def shuffled_batch(count: int, batch_size: int, step: int, seed: int, stage: str) -> list[int]:
    """Which of `count` items step `step`, counted from 0, trains on: every epoch is a new order keyed by its number."""
    batch = []
    for position in range(step * batch_size, (step + 1) * batch_size):
        epoch, place = divmod(position, count)
        batch.append(_epoch_order(count, seed, stage, epoch)[place])
    return batch


@lru_cache(maxsize=4)
def _epoch_order(count: int, seed: int, stage: str, epoch: int) -> list[int]:
    import torch

    return torch.randperm(count, generator=torch_generator(seed, stage, "order", epoch)).tolist()
