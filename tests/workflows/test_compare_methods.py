"""The comparison of methods through `pyflyte run`: its settings, its images and its tables."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from PIL import Image

from hand1000.config.comparison import (
    METHODS,
    SOURCE_METHOD,
    TRAINED_METHODS,
    ComparisonSettings,
    parse_methods,
    parse_seeds,
    plain_finetuning,
)
from hand1000.config.inputs import load_config
from hand1000.config.settings import load_settings
from hand1000.core.errors import Hand1000Error
from hand1000.evaluation.method_tables import (
    advantage_table,
    count_wins,
    extra_metrics_table,
    gesture_table,
    mean_table,
    paired_table,
)
from hand1000.evaluation.methods import MethodResult
from hand1000.registry.connection import connect
from hand1000.registry.tracking import EXPERIMENT
from tests.support.short_demo import PYFLYTE, ROOT, inputs_file


def test_shipped_comparison_has_the_settings_of_the_demo() -> None:
    shipped = yaml.safe_load((ROOT / "workflows/configs/compare.yaml").read_text())
    demo = yaml.safe_load((ROOT / "workflows/configs/demo.yaml").read_text())
    assert shipped["settings"]["common"] == demo["settings"] | {"seed": 3000}
    ComparisonSettings.model_validate(shipped["settings"])
    assert parse_methods(shipped["methods"]) == tuple(METHODS)
    # The first training's images are drawn from the noise that all methods without a training have.
    assert parse_seeds(shipped["seeds"], 200)[0] == shipped["settings"]["common"]["seed"]


def test_methods_and_seeds_are_lists() -> None:
    assert parse_methods("hand1000, sd") == ("sd", "hand1000") and parse_seeds("207, 7", 200) == (207, 7)
    assert set(SOURCE_METHOD) | set(TRAINED_METHODS) < set(METHODS)
    for text, words in (("sd,sd", "repeated"), ("dalle", "unknown method"), ("", "unknown method")):
        with pytest.raises(Hand1000Error, match=words):
            parse_methods(text)
    for text in ("", "-1", "1.5", "1,,2", "²", "9" * 5000, str(2**31), "1,01", ",".join(map(str, range(101)))):
        with pytest.raises(Hand1000Error, match=r"^seeds: "):
            parse_seeds(text, 1)
    with pytest.raises(Hand1000Error, match=r"200 apart, such as 3000,4000$"):
        parse_seeds("5000,3199,3000", 200)


def test_an_inputs_file_is_checked_for_its_methods_and_seeds(tmp_path: Path) -> None:
    shipped = yaml.safe_load((ROOT / "workflows/configs/compare.yaml").read_text())
    for changes, words in (({"methods": "dalle"}, "unknown method"), ({"seeds": "3000,3001"}, "at least 200 apart")):
        (tmp_path / "inputs.yaml").write_text(yaml.safe_dump(shipped | changes))
        with pytest.raises(Hand1000Error, match=words):
            load_config(tmp_path / "inputs.yaml")


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
    inputs |= {"gestures": inputs.pop("gesture"), "methods": ",".join(METHODS), "seeds": "7"}
    (tmp_path / "inputs.yaml").write_text(yaml.safe_dump(inputs))

    def compare(*overrides: str) -> subprocess.CompletedProcess[str]:
        call = [str(PYFLYTE), "run", "workflows/compare_methods.py", "compare_methods"]
        call += ["--inputs-file", str(tmp_path / "inputs.yaml"), "--root", str(tmp_path / "root"), *overrides]
        done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr[-3000:]
        return done

    done = compare()
    (page,) = (tmp_path / "root" / "artifacts" / "write_comparison").glob("*/comparison.html")
    assert str(page) in done.stdout and "| Hand1000 |" in done.stdout
    assert "compare_methods: cell 6 of 6 done, about 0 min left" in done.stderr

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
    results = {"four": {name: [MethodResult.model_validate(row) for row in written["four"][name]] for name in methods}}
    for name, (result,) in results["four"].items():
        # Every method has the same prompts and seeds.
        assert [image.file_name for image in result.metrics.images] == [f"{index:06d}.png" for index in range(6)]
        assert (result.cost.train_seconds > 0) == ("tuned" in name or name == "hand1000")
        assert result.cost.image_seconds > 0 and result.cost.peak_bytes > 1e8
        assert result.seed == 7
    assert results["four"]["sd_imagic"][0].cost.image_seconds > results["four"]["sd"][0].cost.image_seconds
    with Image.open(page.parent / "images.png") as grid:
        assert grid.size[0] > 3 * 64 and grid.size[1] > 6 * 64

    paired = paired_table(results).markdown().splitlines()[2:]
    assert [line.split("|")[1].strip() for line in paired] == [METHODS[name] for name in methods if name != "hand1000"]
    assert all("p = " in line for line in paired) and paired[0] in (page.parent / "tables.md").read_text()

    extra = extra_metrics_table(results).markdown().splitlines()[2:]
    # Four real images determine neither plausible hands nor the meaning of the color words.
    assert all([cell.strip() == "–" for cell in row.split("|")[2:-1]] == [False] * 2 + [True] * 5 for row in extra)
    assert "–" in advantage_table(results).markdown()  # One gesture has no variance.

    table = gesture_table(results["four"]).markdown()
    assert table.count("\n") == 2 + len(methods)
    # The mean of two equal gestures is equal to each of them.
    twice = {"four": results["four"], "ok": results["four"]}
    assert mean_table(twice) == mean_table(results)
    assert mean_table(results).markdown().splitlines()[2].startswith("| SD | ")
    best = max(results["four"], key=lambda name: results["four"][name][0].metrics.detection_rate)
    assert count_wins(twice, best, "detection rate") == 2
    (row,) = (row for row in table.splitlines() if row.startswith(f"| {METHODS[best]} |"))
    assert row.split("|")[3].strip().startswith("**")

    # A second seed trains once more what is trained; the rest and the first seed are recalled.
    done = compare("--seeds", "7,13", "--methods", "sd,sd_tuned,hand1000")
    assert "compare_methods: cell 5 of 5 done" in done.stderr
    assert done.stderr.count("train_unet: started") == 2 and done.stderr.count("generate_base: started") == 0
    (second,) = set((tmp_path / "root" / "artifacts" / "write_comparison").glob("*/comparison.html")) - {page}
    repeated = json.loads((second.parent / "comparison.json").read_text())["four"]
    assert {name: [row["seed"] for row in rows] for name, rows in repeated.items()} == {
        "sd": [7],
        "sd_tuned": [7, 13],
        "hand1000": [7, 13],
    }
    assert repeated["hand1000"][0] == written["four"]["hand1000"][0] != repeated["hand1000"][1]
    tables = (second.parent / "tables.md").read_text()
    assert "1 gesture with 2 trainings each" in tables
    assert "Hand1000 leads SD fine-tuned by at least 0.10 in gesture accuracy" in tables and "Paired test" not in tables
    with Image.open(second.parent / "differences.png") as plot:
        assert plot.size[0] > 1000
