"""The state of an unfinished training, in files that any stage can be continued from to the same bits."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from hand1000.diffusion.progress import Checkpoint

STATE = "state.json"


def save_state(
    directory: Path,
    *,
    step: int,
    tensors: Mapping[str, torch.Tensor] | None = None,
    modules: Mapping[str, nn.Module] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    history: list[dict] | None = None,
) -> None:
    """Write everything that the next step depends on into `directory`, an existing empty folder.

    Args:
        step: how many steps are done.
        tensors: free tensors, such as embeddings under optimisation.
        modules: networks, with their buffers.
        optimizer: its moments and step counts; learning rates follow from `step` and are not saved.
        history: what was logged so far.
    """
    if tensors:
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
            directory / "tensors.safetensors",
        )
    for name, module in (modules or {}).items():
        save_file(
            {key: value.cpu().contiguous() for key, value in module.state_dict().items()},
            directory / f"{name}.safetensors",
        )
    if optimizer is not None:
        moments = {
            f"{index}.{name}": value.cpu().contiguous()
            for index, entry in optimizer.state_dict()["state"].items()
            for name, value in entry.items()
        }
        save_file(moments, directory / "optimizer.safetensors")
    (directory / STATE).write_text(json.dumps({"step": step, "history": history or []}))


def load_state(
    directory: Path,
    *,
    modules: Mapping[str, nn.Module] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> tuple[int, dict[str, torch.Tensor], list[dict]]:
    """Read what `save_state` wrote, into `modules` and `optimizer`; returns step, free tensors and history."""
    state = json.loads((directory / STATE).read_text())
    for name, module in (modules or {}).items():
        module.load_state_dict(load_file(directory / f"{name}.safetensors"))
    if optimizer is not None:
        entries: dict[int, dict[str, torch.Tensor]] = {}
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for key, value in load_file(directory / "optimizer.safetensors").items():
            index, name = key.split(".", 1)
            parameter = parameters[int(index)]
            # A moment in another memory format than its parameter's takes other kernels, which round otherwise.
            if value.shape == parameter.shape:
                value = torch.empty_like(parameter, device="cpu").copy_(value)
            entries.setdefault(int(index), {})[name] = value
        optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})
    free = directory / "tensors.safetensors"
    return state["step"], load_file(free) if free.is_file() else {}, state["history"]


def keep(checkpoint: Checkpoint, **state) -> None:
    """Save the state (see `save_state`) into `checkpoint`."""
    with tempfile.TemporaryDirectory() as folder:
        save_state(Path(folder), **state)
        checkpoint.save(Path(folder))


def resume(
    checkpoint: Checkpoint,
    *,
    modules: Mapping[str, nn.Module] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> tuple[int, dict[str, torch.Tensor], list[dict]]:
    """Load the state that `checkpoint` holds (see `load_state`); step 0 with nothing else when it holds none."""
    with tempfile.TemporaryDirectory() as folder:
        if checkpoint.restore(Path(folder)):
            return load_state(Path(folder), modules=modules, optimizer=optimizer)
    return 0, {}, []


class ExponentialAverage:
    """Exponentially averaged copy of a module's parameters; the decay rises with the first steps.

    A decay of 0 follows the module itself.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        import copy

        self.decay = decay
        self.module = copy.deepcopy(module).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Take in the parameters after optimiser step number `step`, counted from 1."""
        decay = min(self.decay, step / (step + 10)) if self.decay else 0.0
        averaged: list[torch.Tensor] = list(self.module.parameters())
        current: list[torch.Tensor] = list(module.parameters())
        torch._foreach_lerp_(averaged, current, 1 - decay)
