"""The whole workflow through `pyflyte run`, as a user starts it, with few steps on the model that ships."""

import hashlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from hand1000.registry.connection import connect
from tests.support.imported import COMPUTING, HEAVY, run_traced
from tests.support.short_demo import ROOT, command, run


def weights(folder: Path) -> str:
    (path,) = (folder / "root" / "artifacts" / "assemble_model").glob("*/unet/diffusion_pytorch_model.safetensors")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def kill_at(folder: Path, line: str) -> None:
    """Start the workflow and kill -9 its process group as soon as it prints `line`."""
    with subprocess.Popen(
        command(folder),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        for output in process.stderr:
            if line in output:
                break
        else:
            raise AssertionError(f"never printed {line!r}")
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGKILL)


def test_run_prints_metrics_report_and_next_command(finished_run: Path) -> None:
    output = (finished_run / "stdout").read_text()
    for expected in ("gesture accuracy", "report.html", "models:/hand1000-four-candidates/1", "hand1000 generate"):
        assert expected in output


def test_second_run_elsewhere_computes_and_registers_nothing(finished_run: Path, tmp_path: Path) -> None:
    """The root is a copy, which must not use anything of the original."""
    shutil.copytree(finished_run / "root", tmp_path / "root")
    done, packages = run_traced(*command(tmp_path))
    assert ": started" not in done.stderr and "train_unet: already there" in done.stderr
    assert f"--model models:/hand1000-four-candidates/1 --registry {tmp_path / 'root'} " in done.stdout
    assert "mlflow" in packages and not packages & (COMPUTING - {"scipy"})  # Which MLflow imports itself.
    tracking = connect(tmp_path / "root")
    runs = tracking.client.search_runs([tracking.client.get_experiment_by_name("hand1000").experiment_id])
    assert all(run.info.artifact_uri.startswith((tmp_path / "root").as_uri()) for run in runs)
    (parent,) = (run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    stages = {run.info.run_name: run.data.metrics for run in runs if run is not parent}
    assert stages["train_unet"]["seconds.all"] > 0
    assert {"base/FID", "tuned/FID", "tuned/gesture accuracy"} <= set(parent.data.metrics)
    assert {"export/gesture accuracy", "export/detection rate"} <= set(parent.data.metrics)
    assert [used.dataset.name for used in parent.inputs.dataset_inputs] == ["four, train", "four, test"]
    (logged,) = tracking.client.search_logged_models([parent.info.experiment_id])
    assert {metric.key for metric in logged.metrics} == set(parent.data.metrics)
    images = tracking.client.list_artifacts(parent.info.run_id, "images")
    assert [image.path for image in images] == ["images/first.png", "images/random.png"]
    assert tracking.client.get_model_version("hand1000-four-candidates", "1").run_id == parent.info.run_id
    # Nothing has changed since, not even in MLflow.
    again, packages = run_traced(*command(tmp_path))
    assert again.stdout == done.stdout and "flytekit" in packages and not packages & HEAVY


def test_run_killed_in_three_stages_ends_in_the_same_bits(finished_run: Path, tmp_path: Path) -> None:
    for line in ("train_fusion: started", "train_unet: 1/", "generate_base shard 1 of 1: 2/"):
        kill_at(tmp_path, line)
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert weights(tmp_path) == weights(finished_run)
    assert not list((tmp_path / "root" / "checkpoints").rglob("*.safetensors"))
