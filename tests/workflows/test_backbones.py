"""Training, registration, serving and export of each backbone, through `pyflyte run` on a tiny model of its classes."""

import base64
import io
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from fastapi.testclient import TestClient
from PIL import Image

import hand1000
from hand1000.cli.main import main
from hand1000.config.serving import ServingLimits
from hand1000.export.sampler import export_sampler
from hand1000.pipelines.generation import generate
from hand1000.registry.connection import connect
from hand1000.registry.load import load_model_folder
from hand1000.serving.app import create_app
from hand1000.serving.model import load_served_model
from tests.support.backbones import TINY_BACKBONES
from tests.support.short_demo import PYFLYTE, ROOT

PROMPT, RESOLUTION = "a red hand, making four fingers up hand gesture", 32
SETTINGS = {
    "data": {"test_images": 2},
    "stage1": {"feature": "none", "max_missed": 1.0},
    "stage2": {"fusion_steps": 2, "fusion_learning_rate": 0.1, "embedding_steps": 1, "fusion_rank": 4},
    "stage3": {
        "steps": 2,
        "batch_size": 2,
        "learning_rate": 0.01,
        "prior": {"images": 2, "batch_size": 1},
        "validation": {"images": 1, "every": 2, "images_drawn": 1},
    },
    "generation": {"guidance_scale": 3.0, "autoguidance_scale": 2.0, "num_inference_steps": 2, "num_images": 2},
    "evaluation": {"general_images": 0, "other_gesture_images": 0, "export_images": 0},
}
"""As little as passes through every stage, with a conditioning in each place that takes one."""


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        name: Name of the backbone.
        root: Artifact root.
        uri: The registered model.
    """

    name: str
    root: Path
    uri: str


def save_base(preset: str, folder: Path) -> Path:
    """Save a base model of images that the renderer of hands can draw."""
    TINY_BACKBONES[preset].save(folder)
    path = folder / "vae" / "config.json"
    vae = json.loads(path.read_text())
    path.write_text(json.dumps(vae | {"sample_size": RESOLUTION}))
    side = RESOLUTION // 2 ** (len(vae["block_out_channels"]) - 1)
    for part in ("unet", "transformer"):
        path = folder / part / "config.json"
        if path.is_file() and "sample_size" in (config := json.loads(path.read_text())):
            path.write_text(json.dumps(config | {"sample_size": side}))
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One artifact root, so that MLflow's database is made once."""
    return tmp_path_factory.mktemp("backbones") / "root"


@pytest.fixture(scope="module", params=TINY_BACKBONES)
def run(request: pytest.FixtureRequest, root: Path) -> Run:
    preset, folder = request.param, root.parent
    inputs = yaml.safe_load((ROOT / "workflows/configs/demo.yaml").read_text())
    inputs |= {"images": 4, "base_model": str(save_base(preset, folder / preset)), "root": str(root)}
    inputs["settings"] = {"preset": preset} | SETTINGS
    path = folder / f"{preset}.yaml"
    path.write_text(yaml.safe_dump(inputs))
    command = [str(PYFLYTE), "run", "workflows/train_gesture.py", "train_gesture", "--inputs-file", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("registered  "))
    return Run(preset, root, line.split()[1])


def test_the_run_trains_and_registers_the_backbone(run: Run) -> None:
    folder = load_model_folder(run.uri, registry=run.root)
    assert json.loads((folder / "model_index.json").read_text())["backbone"] == run.name
    version = connect(run.root).client.get_model_version(*run.uri.removeprefix("models:/").split("/"))
    assert version.tags["hand1000.model_digest"]
    rows = [json.loads(line) for path in run.root.glob("artifacts/train_unet/*/history.jsonl") for line in path.open()]
    assert all(np.isfinite([row["loss"] for row in rows])) and any("validation_loss" in row for row in rows)
    pipeline = hand1000.load_pipeline(run.uri, registry=run.root)
    assert pipeline.guidance_denoiser is not None
    tuned, base = (module.state_dict() for module in (pipeline.backbone.denoiser, pipeline.guidance_denoiser))
    assert any(not torch.equal(value, base[name]) for name, value in tuned.items())


def test_both_servers_draw_the_same_image(run: Run) -> None:
    import mlflow.pyfunc

    served = load_served_model(run.uri, registry=run.root, limits=ServingLimits())
    answer = TestClient(create_app(served)).post("/generate", json={"prompt": PROMPT, "seed": 5})
    assert answer.status_code == 200, answer.text
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", connect(run.root).uri)
        model: Any = mlflow.pyfunc.load_model(run.uri)
        predictions = model.predict([{"prompt": PROMPT}], params={"seed": 5})
    (sent,), (predicted,) = answer.json()["images"], predictions["image"]
    first, second = (Image.open(io.BytesIO(base64.b64decode(image))) for image in (sent["image"], predicted))
    assert first.size == (RESOLUTION, RESOLUTION) and first.tobytes() == second.tobytes()


def test_the_export_draws_the_image_in_the_stock_pipeline(run: Run, tmp_path: Path) -> None:
    import diffusers

    out = tmp_path / "export"
    options = ["--registry", str(run.root), "--model", run.uri]
    assert main(["export", *options, "--to", "diffusers", "--out", str(out)]) == 0
    for form in ("single-file", "lora", "lora-diffusers"):
        assert main(["export", *options, "--to", form, "--out", str(tmp_path / f"{form}.safetensors")]) == 0
    pipeline = hand1000.load_pipeline(run.uri, registry=run.root)
    (expected,) = generate(pipeline, [PROMPT], [5], output_type="np", **export_sampler(pipeline))
    (other,) = generate(pipeline, [PROMPT], [5], output_type="np", mu=1.0, **export_sampler(pipeline))
    assert np.abs(other.astype(int) - expected).max() > 2  # else the fusion has no effect
    stock_class = json.loads((out / "model_index.json").read_text())["_class_name"]
    assert stock_class == pipeline.backbone.pipeline_classes[0]
    stock = getattr(diffusers, stock_class).from_pretrained(out)
    stock.set_progress_bar_config(disable=True)
    image = stock(
        PROMPT,
        height=RESOLUTION,
        width=RESOLUTION,
        guidance_scale=pipeline.backbone.stock_guidance_scale(pipeline.config.guidance_scale),
        num_inference_steps=pipeline.config.num_inference_steps,
        generator=torch.Generator().manual_seed(5),
        output_type="np",
    ).images[0]
    assert np.abs(image * 255 - expected).max() <= 1
