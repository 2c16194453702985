"""Checks that losses, gradients and weights are finite, and the loss scaler of fp16 with its count of skipped steps."""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch

from hand1000.config.settings import ComputeSettings
from hand1000.core.errors import Hand1000Error

MAX_SKIPPED_IN_A_ROW = 32
"""Skipped steps in a row that end a run: each halves the scale, which starts at 2^16, so that nothing is left of it."""

_MAX_LISTED = 8

_CLIP_EPSILON = 1e-6
"""What PyTorch adds to the norm before it divides by it."""


@torch.no_grad()
def all_finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether no entry of any tensor is infinite or NaN."""
    tensors = list(tensors)
    # The usual norm overflows above 1e19, but it takes a CPU a fourteenth of the time of the largest magnitude.
    return any(bool(torch.isfinite(torch.nn.utils.get_total_norm(tensors, order))) for order in (2.0, float("inf")))


def finite_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics that a history and JSON can hold, in order."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def not_finite_error(what: str, step: int, items: Sequence[str] = (), checkpoint_step: int = 0) -> Hand1000Error:
    """Describe what is not finite, and where a retry continues.

    Args:
        what: What is not finite.
        step: The step, counted from 1.
        items: Images of the step's batch.
        checkpoint_step: Step of the last checkpoint, whose weights are finite; 0 without one.
    """
    listed = ", ".join(items[:_MAX_LISTED]) + (", ..." if len(items) > _MAX_LISTED else "")
    retry = f"from the checkpoint of step {checkpoint_step}" if checkpoint_step else "from the beginning"
    return Hand1000Error(
        f"step {step}: {what} is infinite or NaN{f' (images {listed})' if listed else ''}; the same command tries "
        f"again {retry}; if it ends here again, choose a lower learning rate, or compute.precision fp32"
    )


class LossScaler:
    """torch's loss scaler, which keeps small fp16 gradients from vanishing; without effect in the other precisions.

    In fp16 a step whose gradients overflow is skipped, and the scale halved. In the other precisions nothing is scaled,
    so that the next attempt would end alike.

    Attributes:
        skipped: Number of skipped steps.
        failed: Whether the last step was refused: not in fp16, or after too many skipped steps in a row.
    """

    def __init__(self, device: torch.device, compute: ComputeSettings) -> None:
        self._scaler = torch.amp.GradScaler(device.type, enabled=compute.precision == "fp16")
        self.skipped = self._skipped_in_a_row = 0
        self.failed = False

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss to compute gradients of."""
        return self._scaler.scale(loss)

    def step(
        self, optimizer: torch.optim.Optimizer, parameters: Sequence[torch.Tensor], max_grad_norm: float | None = None
    ) -> float:
        """Clip the gradients to `max_grad_norm`, if it is set, make one step unless it must be skipped, and drop them.

        Returns:
            The norm of all gradients before clipping, which is not finite if the step was skipped or refused.
        """
        self._scaler.unscale_(optimizer)
        total_norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        norm = total_norm.item()
        # PyTorch multiplies gradients within the bound by 1, which reads and writes them once more.
        if max_grad_norm is not None and not norm + _CLIP_EPSILON < 0.99 * max_grad_norm:
            torch.nn.utils.clip_grads_with_norm_(parameters, max_grad_norm, total_norm)
        if math.isfinite(norm):
            self._skipped_in_a_row = 0
        else:
            self.skipped += 1
            self._skipped_in_a_row += 1
        enabled = self._scaler.is_enabled()
        self.failed = bool(self._skipped_in_a_row) and not enabled or self._skipped_in_a_row > MAX_SKIPPED_IN_A_ROW
        if not self.failed:
            self._scaler.step(optimizer)
            self._scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return norm

    def tensors(self) -> dict[str, torch.Tensor]:
        """The state as tensors for a checkpoint; empty in the other precisions."""
        state = self._scaler.state_dict()
        return {name: torch.tensor(value) for name, value in state.items()} | (
            {"skipped": torch.tensor(self.skipped)} if state else {}
        )

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Continue from `tensors`, if there are any."""
        state = {name: tensor.item() for name, tensor in tensors.items()}
        self.skipped = int(state.pop("skipped", 0))
        if state:
            self._scaler.load_state_dict(state)
