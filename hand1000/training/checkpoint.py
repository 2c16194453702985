"""Checkpoints of an unfinished training, from which it continues to the same bits."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from hand1000.core.progress import CheckpointStore, NullCheckpointStore

STATE, FILES = "state.json", "files"
STATE_DIR = "state"
"""Folder of a state in a workspace, which a checkpoint store may move away."""

Tensors = dict[str, torch.Tensor]


@dataclass
class TrainingState:
    """Finished steps, logged rows, and groups of free tensors, such as the embeddings that are optimized."""

    step: int = 0
    history: list[dict] = field(default_factory=list)
    tensors: Mapping[str, Tensors] = field(default_factory=dict)


def save_checkpoint(
    checkpoint: CheckpointStore,
    state: TrainingState,
    *,
    modules: Mapping[str, nn.Module] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    files: Path | None = None,
) -> None:
    """Save everything that the next step depends on, with the `files` that the training has written so far.

    The learning rates of the optimizer are not saved: they follow from the step.
    """
    if isinstance(checkpoint, NullCheckpointStore):
        return
    groups: dict[str, Tensors] = {f"tensors.{name}": group for name, group in state.tensors.items() if group}
    groups |= {name: module.state_dict() for name, module in (modules or {}).items()}
    counts: dict[str, int] = {}
    if optimizer is not None:
        entries = {
            f"{index}.{name}": value
            for index, entry in optimizer.state_dict()["state"].items()
            for name, value in entry.items()
        }
        groups["optimizer"] = {key: value for key, value in entries.items() if isinstance(value, torch.Tensor)}
        # Some optimizers count their steps in tensors, some in integers.
        counts = {key: value for key, value in entries.items() if isinstance(value, int)}
    with checkpoint.workspace() as folder:
        directory = Path(folder) / STATE_DIR
        directory.mkdir()
        for name, group in groups.items():
            tensors = {key: value.detach().cpu().contiguous() for key, value in group.items()}
            save_file(tensors, directory / f"{name}.safetensors")
        if files is not None:
            shutil.copytree(files, directory / FILES)
        saved = {"step": state.step, "history": state.history, "counts": counts}
        (directory / STATE).write_text(json.dumps(saved, allow_nan=False))
        checkpoint.save(directory)


def load_checkpoint(
    checkpoint: CheckpointStore,
    *,
    modules: Mapping[str, nn.Module] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    files: Path | None = None,
) -> TrainingState:
    """Load what `save_checkpoint` saved into `modules`, `optimizer` and `files`; step 0 when nothing is saved."""
    with checkpoint.workspace() as folder:
        directory = Path(folder) / STATE_DIR
        if not checkpoint.restore(directory):
            return TrainingState()
        saved = json.loads((directory / STATE).read_text())
        for name, module in (modules or {}).items():
            module.load_state_dict(load_file(directory / f"{name}.safetensors"))
        if optimizer is not None:
            _load_optimizer(optimizer, load_file(directory / "optimizer.safetensors"), saved["counts"])
        if files is not None and (directory / FILES).is_dir():
            shutil.copytree(directory / FILES, files, dirs_exist_ok=True)
        paths = directory.glob("tensors.*.safetensors")
        tensors = {path.stem.removeprefix("tensors."): load_file(path) for path in paths}
        return TrainingState(saved["step"], saved["history"], tensors)


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors, counts: Mapping[str, int]) -> None:
    entries: dict[int, dict[str, torch.Tensor | int]] = {}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        parameter = parameters[int(index)]
        # A moment in another memory format than its parameter's runs through other kernels, which round differently.
        if value.shape == parameter.shape:
            value = torch.empty_like(parameter, dtype=value.dtype, device="cpu").copy_(value)
        entries.setdefault(int(index), {})[name] = value
    for key, count in counts.items():
        index, name = key.split(".", 1)
        entries.setdefault(int(index), {})[name] = count
    optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})


def trainable_parameters(module: nn.Module) -> dict[str, torch.Tensor]:
    """The parameters of `module` that require a gradient, by name."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


@torch.no_grad()
def load_trainable_parameters(module: nn.Module, values: Tensors) -> None:
    """Set trainable parameters of `module` to `values`, by name."""
    parameters = trainable_parameters(module)
    for name, value in values.items():
        parameters[name].copy_(value)
