"""The comparison of methods through `pyflyte run`: its settings, its images and its tables."""

import json
import subprocess
from pathlib import Path

import yaml
from PIL import Image

from hand1000.config.comparison import ComparisonSettings, plain_finetuning
from hand1000.config.settings import load_settings
from hand1000.evaluation.methods import (
    METHODS,
    MethodResult,
    advantage_table,
    count_wins,
    extra_metrics_table,
    gesture_table,
    mean_table,
    paired_table,
)
from hand1000.registry.connection import connect
from hand1000.registry.tracking import EXPERIMENT
from tests.support.short_demo import PYFLYTE, ROOT, inputs_file


def test_shipped_comparison_has_the_settings_of_the_demo() -> None:
    shipped = yaml.safe_load((ROOT / "workflows/configs/compare.yaml").read_text())
    demo = yaml.safe_load((ROOT / "workflows/configs/demo.yaml").read_text())
    # docs/comparison.md was measured with the demo's former sampler, that of the baselines.
    sampler = {"sampler": "ddim", "num_inference_steps": 25}
    assert shipped["settings"]["common"] == demo["settings"] | {"seed": 3000, "generation": sampler}
    ComparisonSettings.model_validate(shipped["settings"])


def test_plain_finetuning_differs_only_in_the_hand_settings() -> None:
    settings = load_settings("default")
    plain = plain_finetuning(settings.with_overrides({"stage1.pose_components": 12}))
    assert plain.stage1 == settings.stage1
    assert plain.stage3 == settings.stage3 and plain.data == settings.data
    assert (plain.stage2.lambda_, plain.generation.mu) == (1, 1)
    plain_finetuning(load_settings("paper"))


def untrained_controlnet(folder: Path) -> Path:
    """Save an untrained ControlNet of the small base model, which shows only that it is used."""
    from diffusers import ControlNetModel, UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(ROOT / "models/small-base/unet")
    ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 4, 4)).save_pretrained(folder)
    return folder


def test_six_methods_are_compared(tmp_path: Path) -> None:
    inputs = yaml.safe_load(inputs_file(tmp_path).read_text())
    shipped = yaml.safe_load((ROOT / "workflows/configs/compare.yaml").read_text())["settings"]
    imagic = shipped["imagic"] | {"embedding_steps": 2, "unet_steps": 2, "num_inference_steps": 2}
    refiner = shipped["hand_refiner"] | {
        "num_inference_steps": 2,
        "controlnet": str(untrained_controlnet(tmp_path / "net")),
    }
    inputs["settings"] = {"common": inputs["settings"], "imagic": imagic, "hand_refiner": refiner}
    inputs["gestures"] = inputs.pop("gesture")
    (tmp_path / "inputs.yaml").write_text(yaml.safe_dump(inputs))
    call = [str(PYFLYTE), "run", "workflows/compare_methods.py", "compare_methods"]
    call += ["--inputs-file", str(tmp_path / "inputs.yaml"), "--root", str(tmp_path / "root")]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    (page,) = (tmp_path / "root" / "artifacts" / "write_comparison").glob("*/comparison.html")
    assert str(page) in done.stdout and "| Hand1000 |" in done.stdout

    # Two trainings are two runs in MLflow, each with its own curve, and nothing is left running.
    tracking = connect(tmp_path / "root")
    experiment = tracking.client.get_experiment_by_name(EXPERIMENT)
    rows = tracking.client.search_runs([experiment.experiment_id])
    assert {row.info.status for row in rows} == {"FINISHED"}
    trained = [row.data.tags["hand1000.artifact.all"] for row in rows if row.info.run_name == "train_unet"]
    assert len(set(trained)) == 2

    methods = list(METHODS)
    written = json.loads((page.parent / "comparison.json").read_text())
    assert list(written) == ["four"] and set(written["four"]) == set(methods)
    results = {"four": {name: MethodResult.model_validate(written["four"][name]) for name in methods}}
    for name, result in results["four"].items():
        # Every method has the same prompts and seeds.
        assert [image.file_name for image in result.metrics.images] == [f"{index:06d}.png" for index in range(6)]
        assert (result.cost.train_seconds > 0) == ("tuned" in name or name == "hand1000")
        assert result.cost.image_seconds > 0 and result.cost.peak_bytes > 1e8
    assert results["four"]["sd_imagic"].cost.image_seconds > results["four"]["sd"].cost.image_seconds
    with Image.open(page.parent / "images.png") as grid:
        assert grid.size[0] > 3 * 64 and grid.size[1] > 6 * 64

    paired = paired_table(results).markdown().splitlines()[2:]
    assert [line.split("|")[1].strip() for line in paired] == [METHODS[name] for name in methods if name != "hand1000"]
    assert all("p = " in line for line in paired) and paired[0] in (page.parent / "tables.md").read_text()

    extra = extra_metrics_table(results).markdown().splitlines()[2:]
    # Four real images determine neither plausible hands nor the meaning of the color words.
    assert all(
        [cell.strip() == "–" for cell in row.split("|")[2:-1]] == [False] * 2 + [True] * 5 + [False] * 2
        for row in extra
    )
    assert "–" in advantage_table(results).markdown()  # One gesture has no variance.

    table = gesture_table(results["four"]).markdown()
    assert table.count("\n") == 2 + len(methods)
    # The mean of two equal gestures is equal to each of them.
    twice = {"four": results["four"], "ok": results["four"]}
    assert mean_table(twice) == mean_table(results)
    assert mean_table(results).markdown().splitlines()[2].startswith("| SD | ")
    best = max(results["four"], key=lambda name: results["four"][name].metrics.detection_rate)
    assert count_wins(twice, best, "detection rate") == 2
    (row,) = (row for row in table.splitlines() if row.startswith(f"| {METHODS[best]} |"))
    assert row.split("|")[3].strip().startswith("**")
