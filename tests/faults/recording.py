"""One undisturbed run of the short demo, from which every stage can be started by itself.

The run records the inputs of each task and a snapshot of its artifact root before and after it. The files of a snapshot
are hard links, because nothing changes a file of a root in place except MLflow, whose files are copied.
"""

import importlib
import json
import os
import pickle
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hand1000.registry.relocate import FILES
from tests.support.short_demo import ROOT, inputs_file

UNTRACKED = ("shard_indices", "find_champion", "untracked_run")
"""Tasks that write nothing."""


WHOLE = "train_gesture"
"""The whole workflow, which counts as a stage, too."""


@dataclass(frozen=True)
class Stage:
    """One task of the recorded run.

    Attributes:
        name: Name of the task.
        module: Module of the task.
        inputs: Its inputs; a `Directory` stands for each artifact.
        before: Snapshot of the root before the task.
        after: Snapshot after it.
    """

    name: str
    module: str
    inputs: dict[str, Any]
    before: Path
    after: Path


@dataclass(frozen=True)
class Directory:
    """An artifact, by its address below the root."""

    key: str


def link_tree(source: Path, target: Path) -> None:
    """Copy a root by hard links; the files of MLflow, which writes in place, are copied."""
    for folder, folders, files in os.walk(source):
        into = target / os.path.relpath(folder, source)
        into.mkdir(parents=True, exist_ok=True)
        for name in folders:
            (into / name).mkdir(exist_ok=True)
        in_place = FILES in into.parts
        for name in files:
            path = os.path.join(folder, name)
            if in_place or ".db" in name or name.endswith(".lock"):
                shutil.copyfile(path, into / name)
            else:
                os.link(path, into / name)


def _pack(value: Any, root: str) -> Any:
    from flytekit.types.directory import FlyteDirectory

    from tasks.context import RunContext, address

    if isinstance(value, FlyteDirectory):
        return Directory(address(value).removeprefix(f"{root}/"))
    if isinstance(value, RunContext):
        return RunContext(root="", run_id=value.run_id)
    return [_pack(item, root) for item in value] if isinstance(value, list) else value


def _unpack(value: Any, root: str, run_suffix: str) -> Any:
    from flytekit.types.directory import FlyteDirectory

    from tasks.context import RunContext

    if isinstance(value, Directory):
        return FlyteDirectory(f"{root}/{value.key}", remote_directory=False)
    if isinstance(value, RunContext):
        return RunContext(root=root, run_id=f"{value.run_id}{run_suffix}")
    if isinstance(value, list):
        return [_unpack(item, root, run_suffix) for item in value]
    return value


def record(folder: Path) -> None:
    """Run the short demo in `folder` and record its stages there; call it in a process of its own."""
    from flytekit.core.python_function_task import PythonFunctionTask

    root, snapshots = folder / "root", folder / "snapshots"
    snapshots.mkdir(parents=True)
    stages: list[tuple[str, str, dict[str, Any], str, str]] = []
    execute = PythonFunctionTask.execute

    def recorded(task: Any, **inputs: Any) -> Any:
        module, _, name = task.name.rpartition(".")
        before, after = f"{len(stages):02d}-{name}-before", f"{len(stages):02d}-{name}-after"
        if name in UNTRACKED:
            return execute(task, **inputs)
        root.mkdir(exist_ok=True)
        link_tree(root, snapshots / before)
        outputs = execute(task, **inputs)
        link_tree(root, snapshots / after)
        packed = {key: "" if key == "root" else _pack(value, str(root)) for key, value in inputs.items()}
        stages.append((name, module, packed, before, after))
        return outputs

    PythonFunctionTask.execute = recorded
    run_workflow(folder, root)
    (folder / "modules.json").write_text(json.dumps(sorted(sys.modules)))
    (folder / "stages.pickle").write_bytes(pickle.dumps(stages))


def load_stages(folder: Path) -> dict[str, Stage]:
    """Return the recorded stages by name, in the order in which they ran."""
    snapshots = folder / "snapshots"
    stages = {
        name: Stage(name, module, inputs, snapshots / before, snapshots / after)
        for name, module, inputs, before, after in pickle.loads((folder / "stages.pickle").read_bytes())
    }
    first, *_, last = stages.values()
    return {**stages, WHOLE: Stage(WHOLE, "", {}, first.before, last.after)}


def run_workflow(folder: Path, root: Path | str) -> None:
    """Run the short demo as `pyflyte run` does; raises SystemExit as the command does.

    Args:
        folder: Folder for the inputs file.
        root: The artifact root.
    """
    from flytekit.clis.sdk_in_container.pyflyte import main

    from hand1000.core.interruption import install_handlers
    from tasks.command import quiet_checkpoint_finalizers, shorten_flyte_errors

    # The warm process, which is no command, has imported `tasks` without them.
    install_handlers(exits=True, replace=True)
    shorten_flyte_errors()
    quiet_checkpoint_finalizers()
    os.chdir(ROOT)
    inputs = inputs_file(folder)
    arguments = [
        "run",
        "workflows/train_gesture.py",
        "train_gesture",
        "--inputs-file",
        str(inputs),
        "--root",
        str(root),
    ]
    try:
        main(arguments, standalone_mode=False)
    except SystemExit as end:
        if end.code:
            raise


def run_stage(stage: Stage, root: Path | str, run_suffix: str = "") -> Any:
    """Run a recorded task, or the workflow, on another root; raises SystemExit as a local run of the workflow does."""
    import click
    from flytekit import FlyteContextManager
    from flytekit.core.context_manager import ExecutionState

    from hand1000.core.interruption import install_handlers

    if stage.name == WHOLE:
        return run_workflow(Path(str(root)).parent, root)
    inputs = {name: _unpack(value, str(root), run_suffix) for name, value in stage.inputs.items()}
    if "root" in inputs:
        inputs["root"] = str(root)
    os.chdir(ROOT)
    task = getattr(importlib.import_module(stage.module), stage.name)
    context = FlyteContextManager.current_context()
    state = context.execution_state or context.new_execution_state()
    local = state.with_params(mode=ExecutionState.Mode.LOCAL_WORKFLOW_EXECUTION)
    install_handlers(exits=True, replace=True)
    # As a command, which ends with one line instead of a traceback.
    with FlyteContextManager.with_context(context.with_execution_state(local)), click.Context(click.Command("faults")):
        return task.execute(**inputs)


def loaded_modules(folder: Path) -> list[str]:
    """Return the modules that the recorded run had imported at its end."""
    return json.loads((folder / "modules.json").read_text())
