"""Recording of a computation as a CUDA graph, which a GPU replays without waiting for Python.

A step of Stable Diffusion launches some thousand kernels. At a batch of 4, a fast GPU waits for Python in two thirds
of the step.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import torch

from hand1000.config.settings import ComputeSettings
from hand1000.core.errors import one_line
from hand1000.models.backbone import Backbone
from hand1000.models.conditioning import Conditioning
from hand1000.training.batches import NoisyBatch
from hand1000.training.losses import diffusion_loss

logger = logging.getLogger(__name__)

BatchT = TypeVar("BatchT", bound=NoisyBatch)

_WARM_UPS = 2
"""Calls before the recording, in which libraries choose their kernels and allocate their workspaces."""

_TOLERANCE = 0.02
"""Largest difference of the first replay from the same step without a recording, relative to it."""


@dataclass
class Recording:
    """Results of a recorded computation, and the function that computes them again in the same places."""

    outputs: tuple[torch.Tensor, ...]
    replay: Callable[[], None]


def record(compute: Callable[[], tuple[torch.Tensor, ...]]) -> Recording:
    """Record what `compute` does on the GPU.

    Raises:
        RuntimeError: It reads a result back, or does something else that cannot be replayed.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UPS):
            compute()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # Only this thread is watched: another one samples batches and may wait for the GPU.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        outputs = compute()
    return Recording(outputs, graph.replay)


class RecordedFunction(Generic[BatchT]):
    """A function of a batch that is recorded at its first call and replayed for later batches of the same shapes.

    Only one shape is recorded, because a recording keeps the memory of all activations; other batches are computed
    without it. A replay runs the same kernels on the same values; the first one is compared with a computation without
    the recording.

    Args:
        function: Returns tensors of a batch and, if there are `parameters`, leaves their gradients behind. It must not
            depend on anything that changes but the batch and the values of the parameters in their places.
        parameters: Tensors whose `grad` is a further result. Each call replaces it.
        enabled: Whether to record at all, see `may_record`.
    """

    def __init__(
        self,
        function: Callable[[BatchT], tuple[torch.Tensor, ...]],
        parameters: Sequence[torch.Tensor] = (),
        *,
        enabled: bool,
    ) -> None:
        self.enabled = enabled
        self._function, self._parameters = function, list(parameters)
        self._batch: BatchT | None = None
        self._recording: Recording | None = None
        self._gradients: list[torch.Tensor | None] = []

    def __call__(self, batch: BatchT) -> tuple[torch.Tensor, ...]:
        """Return the function's tensors for a batch on the GPU; the next call overwrites them and the gradients."""
        if self.enabled and self._batch is None:
            self._record(batch)
        if self._recording is None or self._batch is None or _shapes(batch) != _shapes(self._batch):
            return self._compute(batch)
        for static, tensor in zip(_tensors(self._batch), _tensors(batch), strict=True):
            static.copy_(tensor.detach())
        self._recording.replay()
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        return self._recording.outputs

    def _compute(self, batch: BatchT) -> tuple[torch.Tensor, ...]:
        for parameter in self._parameters:
            parameter.grad = None
        return self._function(batch)

    def _record(self, batch: BatchT) -> None:
        self._batch = static = _clone(batch)
        expected = self._results(self._compute(static))
        try:
            recording = record(lambda: self._compute(static))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            # A layer of another backbone may read a result back; the step is then only slower.
            self._disable(one_line(error)[:200])
            return
        self._gradients = [parameter.grad for parameter in self._parameters]
        recording.replay()
        if all(_is_close(*pair) for pair in zip(self._results(recording.outputs), expected, strict=True)):
            self._recording = recording
        else:
            self._disable("a replay gives other results than the recorded step")

    def _results(self, outputs: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
        """Copy the results of a call; of the gradients, which are as large as the weights, only their norm."""
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        return [*(output.clone() for output in outputs), torch.nn.utils.get_total_norm(gradients)]

    def _disable(self, reason: str) -> None:
        logger.warning("compute.cuda_graphs: nothing is recorded (%s)", reason)
        self.enabled = False
        self._gradients = []


def _is_close(tensor: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether two results differ by no more than the order of sums in bf16 explains."""
    return bool(torch.linalg.vector_norm(tensor - expected) <= _TOLERANCE * torch.linalg.vector_norm(expected))


class TokenLosses:
    """The loss of each image as a function of its tokens, (B,), for trainings through a frozen denoiser.

    Recorded, it computes the gradient with respect to the tokens together with the losses, because a recording has
    no graph for autograd.
    """

    def __init__(self, base: Backbone, compute: ComputeSettings) -> None:
        self._base, self._compute = base, compute
        self._recorded = RecordedFunction[NoisyBatch](self._with_gradients, enabled=may_record(compute, base.device))

    def __call__(self, batch: NoisyBatch) -> torch.Tensor:
        """Return the losses of a batch on the denoiser's device."""
        if not self._recorded.enabled:
            return diffusion_loss(self._base, batch, self._compute, reduction="none")
        losses, gradients = self._recorded(batch)
        result: torch.Tensor = _KnownGradients.apply(batch.conditioning.tokens, losses.clone(), gradients.clone())
        return result

    def _with_gradients(self, batch: NoisyBatch) -> tuple[torch.Tensor, ...]:
        tokens = batch.conditioning.tokens.detach().requires_grad_(True)
        batch = replace(batch, conditioning=batch.conditioning.with_tokens(tokens))
        losses = diffusion_loss(self._base, batch, self._compute, reduction="none")
        (gradients,) = torch.autograd.grad(losses.sum(), tokens)
        return losses.detach(), gradients


class _KnownGradients(torch.autograd.Function):
    """The losses of tokens, of which an image's depends on its own tokens only, with known gradients."""

    @staticmethod
    def forward(ctx: Any, tokens: torch.Tensor, losses: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gradients)
        return losses

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradients,) = ctx.saved_tensors
        return gradients * grad_outputs[0][:, None, None], None, None


def may_record(compute: ComputeSettings, device: torch.device) -> bool:
    """Whether the settings ask for recordings and `device` can make them."""
    return compute.cuda_graphs and compute.precision != "fp16" and device.type == "cuda"


def add_gradients(parameters: Iterable[torch.Tensor], sums: list[torch.Tensor]) -> None:
    """Add the gradients of `parameters`, which the next micro-batch overwrites, to `sums`, which may be empty."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if sums:
        torch._foreach_add_(sums, gradients)
    else:
        sums += [gradient.clone() for gradient in gradients]


def set_gradients(parameters: Iterable[torch.Tensor], sums: Sequence[torch.Tensor]) -> None:
    """Set the gradients of those `parameters` that have one."""
    for parameter, gradient in zip((p for p in parameters if p.grad is not None), sums, strict=True):
        parameter.grad = gradient


def _tensors(batch: NoisyBatch) -> Iterator[torch.Tensor]:
    """The tensors of a batch, in order."""
    for value in vars(batch).values():
        if isinstance(value, Conditioning):
            yield from value.tensors()
        else:
            yield value


def _shapes(batch: NoisyBatch) -> list[torch.Size]:
    return [tensor.shape for tensor in _tensors(batch)]


def _clone(batch: BatchT) -> BatchT:
    def clone(value: Any) -> Any:
        return value.map(clone) if isinstance(value, Conditioning) else value.detach().clone()

    return type(batch)(*(clone(value) for value in vars(batch).values()))
