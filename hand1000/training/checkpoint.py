"""The state of an unfinished training, in files that any stage can be continued from to the same bits."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from hand1000.core.progress import CheckpointStore

STATE, FILES = "state.json", "files"

Tensors = dict[str, torch.Tensor]


def save_training_state(
    directory: Path,
    *,
    step: int,
    tensors: Mapping[str, Tensors] | None = None,
    modules: Mapping[str, nn.Module] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    history: list[dict] | None = None,
    files: Path | None = None,
) -> None:
    """Write everything that the next step depends on into `directory`, an existing empty folder.

    Args:
        step: how many steps are done.
        tensors: groups of free tensors, such as embeddings under optimisation; a file each.
        modules: networks, with their buffers.
        optimizer: its moments and step counts; learning rates follow from `step` and are not saved.
        history: what was logged so far.
        files: a folder of what was made so far, kept whole.
    """
    groups: dict[str, Tensors] = {f"tensors.{name}": group for name, group in (tensors or {}).items()}
    groups |= {name: module.state_dict() for name, module in (modules or {}).items()}
    counts: dict[str, int] = {}
    if optimizer is not None:
        entries = {
            f"{index}.{name}": value
            for index, entry in optimizer.state_dict()["state"].items()
            for name, value in entry.items()
        }
        groups["optimizer"] = {key: value for key, value in entries.items() if isinstance(value, torch.Tensor)}
        # Some optimisers count their steps in tensors, some in whole numbers.
        counts = {key: value for key, value in entries.items() if isinstance(value, int)}
    for name, group in groups.items():
        save_file(
            {key: value.detach().cpu().contiguous() for key, value in group.items()}, directory / f"{name}.safetensors"
        )
    if files is not None:
        shutil.copytree(files, directory / FILES)
    (directory / STATE).write_text(json.dumps({"step": step, "history": history or [], "counts": counts}))


def load_training_state(
    directory: Path,
    *,
    modules: Mapping[str, nn.Module] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    files: Path | None = None,
) -> tuple[int, dict[str, Tensors], list[dict]]:
    """Read what `save_training_state` wrote into `modules`, `optimizer` and `files`.

    Returns:
        the step, the free tensors and the history.
    """
    state = json.loads((directory / STATE).read_text())
    for name, module in (modules or {}).items():
        module.load_state_dict(load_file(directory / f"{name}.safetensors"))
    if optimizer is not None:
        entries: dict[int, dict[str, torch.Tensor | int]] = {}
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for key, value in load_file(directory / "optimizer.safetensors").items():
            index, name = key.split(".", 1)
            parameter = parameters[int(index)]
            # A moment in another memory format than its parameter's takes other kernels, which round otherwise.
            if value.shape == parameter.shape:
                value = torch.empty_like(parameter, dtype=value.dtype, device="cpu").copy_(value)
            entries.setdefault(int(index), {})[name] = value
        for key, count in state["counts"].items():
            index, name = key.split(".", 1)
            entries.setdefault(int(index), {})[name] = count
        optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})
    if files is not None and (directory / FILES).is_dir():
        shutil.copytree(directory / FILES, files, dirs_exist_ok=True)
    free = {path.stem.removeprefix("tensors."): load_file(path) for path in directory.glob("tensors.*.safetensors")}
    return state["step"], free, state["history"]


def save_checkpoint(checkpoint: CheckpointStore, **state) -> None:
    """Save the state (see `save_training_state`) into `checkpoint`."""
    with tempfile.TemporaryDirectory() as folder:
        save_training_state(Path(folder), **state)
        checkpoint.save(Path(folder))


def load_checkpoint(
    checkpoint: CheckpointStore,
    *,
    modules: Mapping[str, nn.Module] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    files: Path | None = None,
) -> tuple[int, dict[str, Tensors], list[dict]]:
    """Load the state that `checkpoint` holds (see `load_training_state`); step 0 when it holds none."""
    with tempfile.TemporaryDirectory() as folder:
        if checkpoint.restore(Path(folder)):
            return load_training_state(Path(folder), modules=modules, optimizer=optimizer, files=files)
    return 0, {}, []


class EMA:
    """Exponential average of the parameters of a module that are trained; the decay rises with the first steps.

    A decay of 0 follows the module itself, without a copy of it.

    Attributes:
        tensors: the averaged parameters by their names in the module.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self._module = module
        current = trained_parameters(module)
        self.tensors: Tensors = {name: value.detach().clone() for name, value in current.items()} if decay else current

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after optimiser step number `step`, counted from 1."""
        if self.decay:
            decay = min(self.decay, step / (step + 10))
            current = trained_parameters(self._module)
            torch._foreach_lerp_(list(self.tensors.values()), list(current.values()), 1 - decay)

    @torch.no_grad()
    def load(self, tensors: Tensors) -> None:
        """Go on from an average that was saved."""
        for name, value in tensors.items():
            self.tensors[name].copy_(value)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The module computes with the average; memory for no second copy is needed."""
        if not self.decay:
            yield
            return
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for name, parameter in trained_parameters(self._module).items():
            parameter.data, self.tensors[name] = self.tensors[name], parameter.data


def trained_parameters(module: nn.Module) -> dict[str, torch.Tensor]:
    """The parameters of `module` that are trained, by name."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


@torch.no_grad()
def load_trained(module: nn.Module, values: Tensors) -> None:
    """Set those parameters of `module` that are trained to `values`, by name."""
    parameters = trained_parameters(module)
    for name, value in values.items():
        parameters[name].copy_(value)
