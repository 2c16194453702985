"""The count of memory and operations in `python -m benchmarks.backbones`."""

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from benchmarks.backbones import _count_step

WIDTH, INNER, TOKENS = 8, 512, 64


class Block(nn.Module):
    """Few weights, and activations that are much larger than its input."""

    def __init__(self) -> None:
        super().__init__()
        self.widen, self.narrow = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.narrow(nn.functional.silu(self.widen(x)))


def count_blocks(count: int, *, checkpointed: bool) -> tuple[int, float]:
    """Peak bytes, without the weights, and operations of a step that trains what comes before frozen blocks."""
    blocks = [Block().requires_grad_(False) for _ in range(count)]
    start = torch.ones(TOKENS, WIDTH, requires_grad=True)

    def step() -> None:
        x: Any = start
        for block in blocks:
            x = checkpoint(block, x, use_reentrant=False) if checkpointed else block(x)
        x.sum().backward()

    held = [weight for block in blocks for weight in block.parameters()]
    peak, operations = _count_step(step, held)
    return peak - sum(weight.nbytes for weight in held), operations


def test_the_count_sees_what_gradient_checkpointing_saves() -> None:
    few, many = (count_blocks(count, checkpointed=True) for count in (2, 6))
    # Each further block keeps its input alone, and computes most of its activations twice.
    assert (many[0] - few[0]) / 4 <= 2 * 4 * TOKENS * WIDTH
    plain = [count_blocks(count, checkpointed=False) for count in (2, 6)]
    assert (plain[1][0] - plain[0][0]) / 4 >= 4 * TOKENS * INNER
    assert many[1] > 1.2 * plain[1][1]
