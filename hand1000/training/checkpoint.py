"""Checkpoints of an unfinished training, from which it continues to the same bits.

A training does not wait for its checkpoints: they are written beside it, from a copy of the state, where there is
memory for that copy, which is then used again. One is written at a time.
"""

import contextlib
import json
import logging
import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import nn

from hand1000.core.devices import available_memory
from hand1000.core.errors import Hand1000Error
from hand1000.core.progress import CheckpointStore, NullCheckpointStore
from hand1000.storage.tensor_files import TensorFile, read_tensors, read_tensors_into, write_tensors

logger = logging.getLogger(__name__)

STATE, FILES = "state.json", "files"
STATE_DIR = "state"
"""Folder of a state in a workspace, which a checkpoint store may move away."""

_MEMORY_SHARE = 0.5
"""Most of the available memory that the copy of a state takes."""

Tensors = dict[str, torch.Tensor]


@dataclass
class TrainingState:
    """Finished steps, logged rows, and groups of free tensors, such as the embeddings that are optimized."""

    step: int = 0
    history: list[dict] = field(default_factory=list)
    tensors: Mapping[str, Tensors] = field(default_factory=dict)


class CheckpointWriter:
    """Writes the checkpoints of one training; a context that at its end waits for the last one.

    Args:
        store: Where they are kept.
    """

    def __init__(self, store: CheckpointStore) -> None:
        self._store = store
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._copies: dict[str, Tensors] = {}

    def save(
        self,
        state: TrainingState,
        *,
        modules: Mapping[str, nn.Module] | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        files: Path | None = None,
        wait: bool = False,
    ) -> None:
        """Save everything that the next step depends on, and return when it is copied.

        The learning rates of the optimizer are not saved: they follow from the step.

        Args:
            state: Steps, history and free tensors.
            modules: Modules to save, by name.
            optimizer: Optimizer to save.
            files: Folder of what the training has written so far, which is saved too.
            wait: Whether to return only when the state is written; it is then not copied, as where memory is short.

        Raises:
            Hand1000Error: This checkpoint or the one before could not be written.
        """
        if isinstance(self._store, NullCheckpointStore):
            return
        self.wait()
        groups, counts = _collect_tensors(state, modules or {}, optimizer)
        text = json.dumps({"step": state.step, "history": state.history, "counts": counts}, allow_nan=False)
        with contextlib.ExitStack() as stack:
            directory = Path(stack.enter_context(self._store.workspace())) / STATE_DIR
            directory.mkdir()
            if files is not None:
                shutil.copytree(files, directory / FILES)
            (directory / STATE).write_text(text)
            copies = None if wait else self._copy(groups)
            if copies is None or not self._start(directory, copies, stack):
                self._write(directory, groups)

    def raise_error(self) -> None:
        """Raise what kept the last checkpoint from being written."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def wait(self) -> None:
        """Wait until the last checkpoint is written.

        Raises:
            Hand1000Error: It could not be written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.raise_error()

    @torch.no_grad()
    def _copy(self, groups: Mapping[str, Tensors]) -> dict[str, Tensors] | None:
        """Copy tensors to the CPU, into the last copies where they fit; return None where memory is short."""
        last, self._copies = self._copies, {}
        missing = [
            value.nbytes
            for name, group in groups.items()
            for key, value in group.items()
            if not _fits(last.get(name, {}).get(key), value)
        ]
        if missing and sum(missing) > _MEMORY_SHARE * available_memory():
            return None
        try:
            for name, group in groups.items():
                copies, former = self._copies.setdefault(name, {}), last.get(name, {})
                for key, value in group.items():
                    copy = former.get(key)
                    if copy is None or not _fits(copy, value):
                        copy = torch.empty(value.shape, dtype=value.dtype)
                    copies[key] = copy.copy_(value)
        except (RuntimeError, MemoryError):  # Less memory than the system states.
            self._copies = {}
            return None
        return self._copies

    def _start(self, directory: Path, groups: dict[str, Tensors], stack: contextlib.ExitStack) -> bool:
        """Write a state in a thread, which then closes the workspace; return whether a thread could be had."""
        workspace = stack.pop_all()

        def write() -> None:
            try:
                with workspace:
                    self._write(directory, groups)
            except BaseException as error:
                self._error = error

        thread = threading.Thread(target=write, name="checkpoint", daemon=True)
        try:
            thread.start()
        except (RuntimeError, MemoryError):
            stack.push(workspace)
            return False
        self._thread = thread
        return True

    def _write(self, directory: Path, groups: Mapping[str, Tensors]) -> None:
        digests = {
            f"{name}.safetensors": write_tensors(directory / f"{name}.safetensors", group)
            for name, group in groups.items()
        }
        self._store.save(directory, digests)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._copies = {}
        try:
            self.wait()
        except Exception as failure:
            if error is None:
                raise
            logger.warning("the last checkpoint could not be written: %s", failure)


def save_checkpoint(
    checkpoint: CheckpointStore,
    state: TrainingState,
    *,
    modules: Mapping[str, nn.Module] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    files: Path | None = None,
) -> None:
    """Save a state as `CheckpointWriter.save` does, and wait until it is written."""
    CheckpointWriter(checkpoint).save(state, modules=modules, optimizer=optimizer, files=files, wait=True)


def load_checkpoint(
    checkpoint: CheckpointStore,
    *,
    modules: Mapping[str, nn.Module] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    targets: Mapping[str, Tensors] | None = None,
    files: Path | None = None,
) -> TrainingState:
    """Load what was saved into `modules`, `optimizer` and `files`; step 0 when nothing is saved.

    Tensors are read one by one to where they belong, so that no second copy of the state is in memory.

    Args:
        checkpoint: Where the state is kept.
        modules: Modules that were saved, by name.
        optimizer: Optimizer of the training.
        targets: Groups of free tensors that are set in place; the other groups are in the returned state.
        files: Folder for the files of the training.

    Raises:
        Hand1000Error: The state belongs to another training.
    """
    with checkpoint.workspace() as folder:
        directory = Path(folder) / STATE_DIR
        if not checkpoint.restore(directory, read_only=True):
            return TrainingState()
        saved = json.loads((directory / STATE).read_text())
        for name, module in (modules or {}).items():
            read_tensors_into(directory / f"{name}.safetensors", module.state_dict())
        if optimizer is not None:
            _load_optimizer(optimizer, directory / "optimizer.safetensors", saved["counts"])
        if files is not None and (directory / FILES).is_dir():
            shutil.copytree(directory / FILES, files, dirs_exist_ok=True)
        tensors: dict[str, Tensors] = {}
        for path in sorted(directory.glob("tensors.*.safetensors")):
            name = path.stem.removeprefix("tensors.")
            if targets and name in targets:
                read_tensors_into(path, targets[name])
            else:
                tensors[name] = read_tensors(path)
        return TrainingState(saved["step"], saved["history"], tensors)


def _collect_tensors(
    state: TrainingState, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer | None
) -> tuple[dict[str, Tensors], dict[str, int]]:
    """Return the groups of tensors of a state, without copies, and the integers of the optimizer."""
    groups: dict[str, Tensors] = {f"tensors.{name}": group for name, group in state.tensors.items() if group}
    groups |= {name: module.state_dict() for name, module in modules.items()}
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
    return groups, counts


def _fits(copy: torch.Tensor | None, value: torch.Tensor) -> bool:
    return copy is not None and (copy.shape, copy.dtype) == (value.shape, value.dtype)


def _load_optimizer(optimizer: torch.optim.Optimizer, path: Path, counts: Mapping[str, int]) -> None:
    entries: dict[int, dict[str, torch.Tensor | int]] = {}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    with TensorFile(path) as file:
        for key in file.names:
            index, name = key.split(".", 1)
            if not index.isdecimal() or int(index) >= len(parameters):
                raise Hand1000Error(f"{path}: {key} belongs to no parameter of this training; remove the file")
            parameter = parameters[int(index)]
            if file.shape(key) == tuple(parameter.shape):
                # A moment in another memory format than its parameter's runs through other kernels, which round
                # differently.
                value = torch.empty_like(parameter, dtype=file.dtype(key), requires_grad=False)
                file.read_into(key, value)
            else:
                value = file.read(key)
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
