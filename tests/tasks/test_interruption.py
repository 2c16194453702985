"""SIGTERM and SIGINT at a task, in a forked process that runs it as `pyflyte run` does."""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
import yaml
from flytekit.types.directory import FlyteDirectory

from hand1000.config.settings import Settings
from hand1000.core.interruption import install_handlers
from hand1000.registry.tracking import EXPERIMENT
from tasks.context import RunContext
from tests.support.forked_torch import renew_thread_pool
from tests.support.short_demo import ROOT, inputs_file

STEPS = 8


@pytest.fixture
def inputs(finished_run: Path, tmp_path: Path) -> dict:
    """The inputs of Stage III in the finished run, to be trained at a new artifact root without validation."""
    values = yaml.safe_load(inputs_file(tmp_path).read_text())["settings"]
    values["stage3"] |= {"steps": STEPS, "checkpoint_every": 1000}

    def artifact(kind: str) -> FlyteDirectory:
        (folder,) = (path for path in (finished_run / "root/artifacts" / kind).iterdir() if path.is_dir())
        target = tmp_path / "root/artifacts" / kind / folder.name
        target.parent.mkdir(parents=True)
        target.symlink_to(folder)
        target.with_suffix(".json").symlink_to(folder.with_suffix(".json"))
        return FlyteDirectory(str(target), remote_directory=False)

    return {
        "encoded": artifact("encode_dataset"),
        "fusion": artifact("train_fusion"),
        "embeddings": [artifact("optimize_embeddings")],
        "class_images": artifact("generate_class_images"),
        "base_model": str(ROOT / "models/small-base"),
        "settings": Settings.model_validate(values),
        "run": RunContext(root=str(tmp_path / "root"), run_id="interrupted"),
    }


def run_and_signal(call: Callable[[], object], number: int, at: str, log: Path) -> int:
    """Run `call` in a forked process, as a command does, send it a signal once it logs `at`, and return its status."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        status = 99
        try:
            os.dup2(writer, 2)
            sys.stderr = os.fdopen(2, "w", buffering=1)
            install_handlers(exits=True, replace=True)
            renew_thread_pool()
            with click.Context(click.Command("pyflyte")):
                call()
            status = 0
        except SystemExit as exit_:
            status = int(exit_.code or 0)
        finally:
            sys.stderr.flush()
            os._exit(status)
    os.close(writer)
    text = ""
    with os.fdopen(reader) as lines:
        for line in lines:
            text += line
            if at in line:
                os.kill(child, number)
    log.write_text(text)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_stage3_saves_and_continues(number, inputs, finished_run, tmp_path, capsys) -> None:
    from tasks.stage3 import train_unet

    log, root = tmp_path / "log", tmp_path / "root"
    status = run_and_signal(lambda: train_unet(**inputs), number, f": 1/{STEPS}", log)
    assert status == 128 + number, log.read_text()
    assert f"hand1000: stopped by {number.name}; the same command continues" in log.read_text()
    (state,) = root.glob("checkpoints/train_unet/*/*/state.json")
    assert 1 <= json.loads(state.read_text())["step"] < STEPS
    assert statuses(inputs["run"]) == {"interrupted": "KILLED", "train_unet": "KILLED"}
    trained = train_unet(**inputs)
    first = capsys.readouterr().err.split(f"/{STEPS}")[0].rpartition(" ")[2]
    assert int(first) > 1, "the training began again"
    assert Path(trained.path).name == next((finished_run / "root/artifacts/train_unet").glob("*.json")).stem
    assert statuses(inputs["run"])["train_unet"] == "FINISHED"
    assert not list(root.glob("checkpoints/train_unet/*"))


def statuses(run: RunContext) -> dict[str, str]:
    """The status of the MLflow runs by name."""
    tracking = run.connect_mlflow()
    experiment = tracking.client.get_experiment_by_name(EXPERIMENT)
    return {row.info.run_name: row.info.status for row in tracking.client.search_runs([experiment.experiment_id])}
