"""A registered model in an environment of its own, without this checkout: minutes, and gigabytes from an index."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from hand1000.registry.connection import connect
from tests.support.mlflow_server import free_port, serving
from tests.support.registration import record_and_register
from tests.support.serving import GESTURES, PROMPTS, post
from tests.support.tiny_pipelines import pipeline_of


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_fresh_environment_serves_the_bytes_of_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow.artifacts
    import mlflow.pyfunc

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    pipeline_of(*GESTURES, strong=True).save_pretrained(tmp_path / "model")
    tracking = connect(tmp_path / "runs")
    version = record_and_register(tracking, tmp_path / "model", "run-1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri)
    expected = mlflow.pyfunc.load_model(version.uri).predict(pd.DataFrame({"prompt": [PROMPTS["ok"]]}))["image"][0]

    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    requirements = mlflow.artifacts.download_artifacts(f"{version.uri}/requirements.txt", dst_path=str(tmp_path))
    pip = [environment / "bin/pip", "install", "--quiet", "--requirement", requirements]
    subprocess.run(pip, check=True, cwd=tmp_path, timeout=1500)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setenv("PATH", f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    python = environment / "bin/python"
    assert subprocess.run([python, "-c", "import hand1000"], capture_output=True).returncode != 0
    url = f"http://127.0.0.1:{free_port()}"
    command = [str(environment / "bin/mlflow"), "models", "serve", "--model-uri", version.uri, "--env-manager", "local"]
    # `serving` puts this interpreter's folder on the path, where another uvicorn is.
    command = ["env", f"PATH={os.environ['PATH']}", *command, "--port", url.rpartition(":")[2]]
    with serving(command, f"{url}/ping", tmp_path / "log"):
        answer = post(f"{url}/invocations", {"inputs": [{"prompt": PROMPTS["ok"]}]})
    assert answer.status == 200, answer.body
    image = json.loads(answer.body)["predictions"][0]["image"]
    assert base64.b64decode(image) == base64.b64decode(expected)
