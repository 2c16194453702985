"""Attempts at a task as on a cluster: `pyflyte-execute` with a home and temporary folder that each attempt loses.

In place of Flyte's propeller, the test starts the container's command, kills it, and starts it again with the prefixes
of the next attempt. The artifact root is on the S3 server.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from flyteidl.core.errors_pb2 import ContainerError, ErrorDocument
from flyteidl.core.literals_pb2 import LiteralMap
from flytekit import FlyteContextManager
from flytekit.core.interface import Interface
from flytekit.core.type_engine import TypeEngine
from flytekit.core.utils import load_proto_from_file, write_proto_to_file
from flytekit.types.directory import FlyteDirectory

from hand1000.config.settings import Settings
from hand1000.storage.artifacts import open_store
from hand1000.storage.s3 import S3Backend
from tasks.context import RunContext
from tests.support.faulty_proxy import faulty_proxy
from tests.support.short_demo import ROOT, inputs_file

EXECUTE = Path(sys.executable).with_name("pyflyte-execute")
BASE = str(ROOT / "models/small-base")


class Attempts:
    """Attempts at one task on the same inputs."""

    def __init__(self, task: Any, inputs: dict[str, Any], folder: Path) -> None:
        self.folder, self.count = folder, 0
        self.module, _, self.name = task.name.rpartition(".")
        self.inputs = folder / "inputs.pb"
        interface: Interface = task.python_interface
        literals = TypeEngine.dict_to_literal_map(FlyteContextManager.current_context(), inputs, interface.inputs)
        write_proto_to_file(literals.to_flyte_idl(), str(self.inputs))

    @contextmanager
    def pod(self, **environment: str) -> Iterator[subprocess.Popen[str]]:
        """Run the next attempt with its own home and temporary folder; at the end kill it and remove them."""
        number, self.count = self.count, self.count + 1
        disk = self.folder / f"disk{number}"
        disk.mkdir()
        out, raw = self.folder / f"out{number}", self.folder / f"raw{number}"
        before = str(self.folder / f"raw{number - 1}/_flytecheckpoints") if number else '""'
        command = [str(EXECUTE), "--inputs", str(self.inputs), "--output-prefix", str(out)]
        command += ["--raw-output-data-prefix", str(raw), "--checkpoint-path", str(raw / "_flytecheckpoints")]
        command += ["--prev-checkpoint", before]
        command += ["--resolver", "flytekit.core.python_auto_container.default_task_resolver", "--"]
        command += ["task-module", self.module, "task-name", self.name]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | {"HOME": str(disk), "TMPDIR": str(disk)} | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            kill(process)
            process.communicate()
            shutil.rmtree(disk)

    def finish(self) -> tuple[str, list[str]]:
        """Run an attempt to its end; return the address of its artifact and the lines that it logged."""
        with self.pod() as process:
            _, log = process.communicate(timeout=200)
        out = self.folder / f"out{self.count - 1}"
        assert not (out / "error.pb").exists(), log[-3000:]
        outputs = load_proto_from_file(LiteralMap, str(out / "outputs.pb"))
        return outputs.literals["o0"].scalar.blob.uri, log.splitlines()

    def error(self) -> ContainerError:
        """Return the error that a failing attempt writes for the propeller; the command itself exits with 0."""
        with self.pod() as process:
            process.communicate(timeout=200)
        return load_proto_from_file(ErrorDocument, str(self.folder / f"out{self.count - 1}" / "error.pb")).error


def kill(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of the short run, with another checkpoint interval, which does not change the result."""
    values = yaml.safe_load(inputs_file(tmp_path).read_text())["settings"]
    values["stage3"]["checkpoint_every"] = 4
    return Settings.model_validate(values)


@pytest.fixture
def published(finished_run: Path, s3_root: str) -> dict[str, FlyteDirectory]:
    """The artifacts of the finished run, published on S3."""
    artifacts = {}
    for kind in (
        "encode_dataset",
        "compute_gesture_feature",
        "train_fusion",
        "optimize_embeddings",
        "generate_class_images",
    ):
        folder = finished_run / "root/artifacts" / kind / artifact_digest(finished_run, kind)
        artifacts[kind] = FlyteDirectory(open_store(s3_root).publish(kind, folder), remote_directory=False)
    return artifacts


def artifact_digest(run: Path, kind: str) -> str:
    """Return the digest of the only artifact of that kind."""
    (folder,) = (path for path in (run / "root/artifacts" / kind).iterdir() if path.is_dir())
    return folder.name


def killed_twice(task: Any, inputs: dict[str, Any], server: str, root: str, folder: Path, first_saved: int) -> str:
    """Kill an attempt at its first save, that of step `first_saved`, and the next one before it saves.

    The S3 server's responses pass through a proxy that kills the attempt as soon as the state is saved.

    Returns:
        The address of the third attempt's artifact, which resumed.
    """
    attempts, name = Attempts(task, inputs, folder), task.name.rpartition(".")[2]

    def saved() -> list[str]:
        keys = S3Backend(root).file_sizes(f"checkpoints/{name}")
        return sorted(key for key in keys if key.endswith("current.json"))

    with faulty_proxy(server, share=0, seed=0) as proxy, attempts.pod(AWS_ENDPOINT_URL_S3=proxy.url) as process:
        proxy.written = lambda key: kill(process) if key.endswith("current.json") else None
        assert process.wait(timeout=200) == -signal.SIGKILL
    with attempts.pod() as process:
        assert process.stderr is not None
        assert any(line.endswith(": started\n") for line in process.stderr)
    assert len(saved()) == 1
    address, log = attempts.finish()
    first = next(line for line in log if line.startswith(name) and "/" in line)
    assert first_saved < int(first.split(": ")[1].split("/")[0]) <= 2 * first_saved
    assert saved() == []
    return address


def test_stage3_resumes_after_two_kills(finished_run, published, settings, s3_server, s3_root, tmp_path) -> None:
    from tasks.stage3 import train_unet

    inputs = {
        "encoded": published["encode_dataset"],
        "fusion": published["train_fusion"],
        "embeddings": [published["optimize_embeddings"]],
        "class_images": published["generate_class_images"],
        "base_model": BASE,
        "settings": settings,
        "run": RunContext(root=s3_root),
    }
    address = killed_twice(train_unet, inputs, s3_server, s3_root, tmp_path, first_saved=4)
    assert address.rpartition("/")[2] == artifact_digest(finished_run, "train_unet")


def test_stage2_resumes_after_two_kills(finished_run, published, settings, s3_server, s3_root, tmp_path) -> None:
    from tasks.stage2 import optimize_embeddings

    inputs = {
        "encoded": published["encode_dataset"],
        "feature": published["compute_gesture_feature"],
        "fusion": published["train_fusion"],
        "base_model": BASE,
        "shard": 0,
        "shards": 1,
        "settings": settings.stage2,
        "compute": settings.compute,
        "seed": settings.seed,
        "run": RunContext(root=s3_root),
    }
    address = killed_twice(optimize_embeddings, inputs, s3_server, s3_root, tmp_path, first_saved=2)
    assert address.rpartition("/")[2] == artifact_digest(finished_run, "optimize_embeddings")


@pytest.mark.parametrize(
    ("endpoint", "message", "kind"),
    [
        (None, "there is no such bucket", ContainerError.NON_RECOVERABLE),
        ("http://127.0.0.1:9", "cannot be reached", ContainerError.RECOVERABLE),
    ],
)
def test_flyte_retries_only_transient_errors(
    endpoint, message, kind, settings, s3_server, tmp_path, monkeypatch
) -> None:
    from tasks.prepare_data import prepare_data

    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint or s3_server)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    inputs = {
        "gesture": "four",
        "images": 8,
        "data": "sample",
        "base_model": BASE,
        "settings": settings.data,
        "seed": 0,
        "run": RunContext(root="s3://no-such-bucket-of-ours/x"),
    }
    error = Attempts(prepare_data, inputs, tmp_path).error()
    assert message in error.message and "no-such-bucket-of-ours" in error.message
    assert error.kind == kind
