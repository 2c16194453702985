"""The whole workflow through `pyflyte run` with settings other than the demo's."""

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from hand1000.cli import main as cli
from hand1000.storage.digests import digest_file
from tests.support.annotated_hands import write_annotated_hands
from tests.support.short_demo import PYFLYTE, ROOT, inputs_file


def run(folder: Path, inputs: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run the workflow on `inputs` with its artifact root in `folder`."""
    path = folder / "changed.yaml"
    path.write_text(yaml.safe_dump(inputs))
    call = [str(PYFLYTE), "run", "workflows/train_gesture.py", "train_gesture", "--inputs-file", str(path)]
    root = ["--root", str(folder / "root")]
    return subprocess.run([*call, *root], cwd=ROOT, capture_output=True, text=True, timeout=280)


def test_preset_paper_runs_through_every_stage(tmp_path: Path) -> None:
    inputs = yaml.safe_load(inputs_file(tmp_path).read_text())
    settings = {"preset": "paper", "data": {"test_images": 4}, "stage2": {"embedding_steps": 2}, "stage3": {"steps": 2}}
    settings["generation"] = {"num_inference_steps": 2, "num_images": 4}
    # The evaluation uses a classifier that was trained on a data set's own landmarks.
    data, classifier = write_annotated_hands(tmp_path / "data"), tmp_path / "classifier"
    assert cli.main(["classifier", "train", "--data", str(data), "--out", str(classifier), "--steps", "50"]) == 0
    settings["evaluation"] = {"gesture_classifier": str(classifier)}
    done = run(tmp_path, inputs | {"images": 4, "settings": settings})
    assert done.returncode == 0, done.stderr[-3000:]
    assert "train_unet: 4/4" in done.stderr and "gesture accuracy" in done.stdout
    (index,) = (tmp_path / "root" / "artifacts" / "assemble_model").glob("*/model_index.json")
    assert yaml.safe_load(index.read_text())["fusion"][1] == "FlatFusion"
    digest = digest_file(classifier / "model.safetensors")
    (tuned,) = (tmp_path / "root" / "artifacts" / "evaluate").glob("*/tuned.json")
    assert json.loads(tuned.read_text())["classifier_sha256"] == digest
    (report,) = (tmp_path / "root" / "artifacts" / "register").glob("*/report.html")
    assert f"Gesture classifier: sha256 {digest}" in report.read_text()


def test_two_processes_train_an_adapter_and_validate(tmp_path: Path, monkeypatch) -> None:
    """Flyte's Elastic starts two processes as on a machine with two GPUs, with gloo in place of nccl."""
    monkeypatch.setenv("HAND1000_PROCESSES", "2")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    inputs = yaml.safe_load(inputs_file(tmp_path).read_text())
    inputs["settings"]["stage3"] |= {
        "training_mode": "lora",
        "prior": {"images": 2, "batch_size": 2, "weight": 1.0},
        "validation": {"images": 2, "every": 4, "images_drawn": 2, "patience": 0},
    }
    inputs["settings"]["compute"]["precision"] = "bf16"
    done = run(tmp_path, inputs)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("train_unet: done") == 1 and "gesture accuracy" in done.stdout
    artifacts = tmp_path / "root" / "artifacts"
    (trained,) = (artifacts / "train_unet").glob("*/validation")
    assert sorted(path.name for path in trained.iterdir()) == ["000004.png", "000008.png"]
    assert list((artifacts / "assemble_model").glob("*/lora/pytorch_lora_weights.safetensors"))
    (report,) = (artifacts / "register").glob("*/report.html")
    assert "after 8 steps" in report.read_text()
