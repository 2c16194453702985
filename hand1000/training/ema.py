"""Exponential moving average of a module's trained parameters."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from hand1000.training.checkpoint import Tensors, trainable_parameters


class EMA:
    """Exponential moving average of the trainable parameters of a module; the decay rises over the first steps.

    It is not diffusers' `EMAModel`, which warms up with other decays and needs a second copy of the weights to swap.
    A decay of 0 follows the module itself, without a copy. `tensors` holds the averaged parameters by name.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self._parameters = current = trainable_parameters(module)
        self.tensors: Tensors = {name: value.detach().clone() for name, value in current.items()} if decay else current

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average after optimizer step number `step`, counted from 1."""
        if self.decay:
            decay = min(self.decay, step / (step + 10))
            torch._foreach_lerp_(list(self.tensors.values()), list(self._parameters.values()), 1 - decay)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Let the module compute with the average inside the context; it swaps pointers and copies nothing."""
        if not self.decay:
            yield
            return
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, parameter in self._parameters.items():
            parameter.data, self.tensors[name] = self.tensors[name], parameter.data
