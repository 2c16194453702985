"""Two runs of different gestures at the same time, on one artifact root and one MLflow server."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.mlflow_server import mlflow_server
from tests.support.short_demo import ROOT, command


def digests(root: Path, kind: str) -> set[str]:
    return {path.name for path in (root / "artifacts" / kind).iterdir() if path.is_dir()}


def test_concurrent_runs_do_not_affect_each_other(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "server").mkdir()
    with mlflow_server(tmp_path / "server", f"{tmp_path}/server/files") as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        runs = {
            gesture: subprocess.Popen(
                command(tmp_path, "--gesture", gesture),
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for gesture in ("four", "ok")
        }
        said = {gesture: run.communicate(timeout=280) for gesture, run in runs.items()}
        for gesture, run in runs.items():
            out, err = said[gesture]
            assert run.returncode == 0, err[-3000:]
            assert f"models:/hand1000-{gesture}-candidates/1" in out

        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        (experiment,) = (one for one in client.search_experiments() if one.name == "hand1000")
        found = client.search_runs([experiment.experiment_id])
        assert {run.data.params["gesture"] for run in found if "gesture" in run.data.params} == {"four", "ok"}
        assert {run.info.status for run in found} == {"FINISHED"}
    root = tmp_path / "root"
    # What one of them made by itself elsewhere is among what both made here, and the other's is another gesture's.
    for kind in ("train_unet", "evaluate", "generate_tuned"):
        alone = digests(finished_run / "root", kind)
        assert alone < digests(root, kind) and len(digests(root, kind)) == 2
    shown = {
        tuple({json.loads(line)["gesture"] for line in (folder / "train/metadata.jsonl").read_text().splitlines()})
        for folder in (root / "artifacts/prepare_data").glob("*/")
    }
    assert shown == {("four",), ("ok",)}
    assert not list((root / "checkpoints").rglob("*.safetensors"))
