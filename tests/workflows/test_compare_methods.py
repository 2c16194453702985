"""The comparison of methods: its tables, and a whole run through `pyflyte run`."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from hand1000.config.comparison import ComparisonSettings, plain_finetuning
from hand1000.config.settings import load_settings
from hand1000.evaluation.distances import Distance
from hand1000.evaluation.methods import (
    METHODS,
    Cost,
    MethodResult,
    advantage_table,
    count_wins,
    extra_metrics_table,
    gesture_table,
    mean_table,
    paired_table,
    read_cost,
)
from hand1000.evaluation.metrics import Metrics
from hand1000.evaluation.paired import paired_bootstrap
from tests.support.short_demo import PYFLYTE, ROOT, inputs_file


def test_shipped_comparison_has_the_settings_of_the_demo() -> None:
    shipped = yaml.safe_load((ROOT / "workflows/configs/compare.yaml").read_text())
    demo = yaml.safe_load((ROOT / "workflows/configs/demo.yaml").read_text())
    assert shipped["settings"]["common"] == demo["settings"] | {"seed": 3000}
    ComparisonSettings.model_validate(shipped["settings"])


def test_plain_finetuning_differs_only_in_the_hand_settings() -> None:
    settings = load_settings("default")
    plain = plain_finetuning(settings.with_overrides({"stage1.pose_components": 12}))
    assert plain.stage1 == settings.stage1
    assert plain.stage3 == settings.stage3 and plain.data == settings.data
    assert (plain.stage2.lambda_, plain.generation.mu) == (1, 1)
    plain_finetuning(load_settings("paper"))


def test_cost_includes_everything_that_had_to_be_computed() -> None:
    trained = [{"seconds": 60.0, "peak_bytes": 3}, {"seconds": 40.0, "peak_bytes": 9}]
    cost = read_cost(trained, [{"seconds": 5.0, "peak_bytes": 1}], [{"seconds": 3.0}, {}], num_images=4)
    assert cost == Cost(train_seconds=100.0, image_seconds=2.0, peak_bytes=9)


@pytest.fixture
def invented_result() -> MethodResult:
    """A result with invented metrics."""
    metrics = Metrics(
        gesture="four",
        n_real=2,
        n_fake=2,
        hands_real=2,
        hands_fake=2,
        fid=1.0,
        kid=Distance(value=0.1, low=0.0, high=0.2),
        cmmd=None,
        fid_h=1.0,
        kid_h=None,
        hand_conf=0.9,
        detection_rate=1.0,
        gesture_accuracy=0.5,
        real_detection_rate=1.0,
        real_gesture_accuracy=1.0,
        palm_score=0.9,
        hand_presence=0.9,
        implausible_hand_rate=None,
        clip_score=None,
        color_faithfulness={"wall": 1.0},
        real_color_faithfulness={"wall": 1.0},
        intra_prompt_distance=None,
        memorization_rate=None,
        by_gesture={},
        extractor="none",
        extractor_sha256="",
        resizer="",
        classifier_sha256="",
        min_detection_confidence=0.5,
        notes=(),
        images=(),
    )
    return MethodResult(metrics=metrics, cost=Cost(train_seconds=1.0, image_seconds=1.0, peak_bytes=1))


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

    methods = list(METHODS)
    written = json.loads((page.parent / "comparison.json").read_text())
    assert list(written) == ["four"] and set(written["four"]) == set(methods)
    cells = {"four": {name: MethodResult.model_validate(written["four"][name]) for name in methods}}
    for name, cell in cells["four"].items():
        # Every method has the same prompts and seeds.
        assert [image.file_name for image in cell.metrics.images] == [f"{index:06d}.png" for index in range(6)]
        assert (cell.cost.train_seconds > 0) == ("tuned" in name or name == "hand1000")
        assert cell.cost.image_seconds > 0 and cell.cost.peak_bytes > 1e8
    assert cells["four"]["sd_imagic"].cost.image_seconds > cells["four"]["sd"].cost.image_seconds
    with Image.open(page.parent / "images.png") as sheet:
        assert sheet.size[0] > 3 * 64 and sheet.size[1] > 6 * 64

    paired = paired_table(cells).markdown().splitlines()[2:]
    assert [line.split("|")[1].strip() for line in paired] == [METHODS[name] for name in methods if name != "hand1000"]
    assert all("p = " in line for line in paired) and paired[0] in (page.parent / "tables.md").read_text()

    extra = extra_metrics_table(cells).markdown().splitlines()[2:]
    # Four real images determine neither plausible hands nor the meaning of the color words.
    assert all(
        [cell.strip() == "–" for cell in row.split("|")[2:-1]] == [False] * 2 + [True] * 5 + [False] * 2
        for row in extra
    )
    assert "–" in advantage_table(cells).markdown()  # One gesture has no variance.

    table = gesture_table(cells["four"]).markdown()
    assert table.count("\n") == 2 + len(methods)
    # Where two gestures are alike, their mean is each of them.
    twice = {"four": cells["four"], "ok": cells["four"]}
    assert mean_table(twice) == mean_table(cells) and mean_table(cells).markdown().splitlines()[2].startswith("| SD | ")
    best = max(cells["four"], key=lambda name: cells["four"][name].metrics.detection_rate)
    assert count_wins(twice, best, "detection rate") == 2
    (row,) = (row for row in table.splitlines() if row.startswith(f"| {METHODS[best]} |"))
    assert row.split("|")[3].strip().startswith("**")


def test_advantage_has_an_interval_over_the_gestures(invented_result: MethodResult) -> None:
    def gesture(ours: float, theirs: float) -> dict[str, MethodResult]:
        return {
            name: invented_result.model_copy(
                update={
                    "metrics": invented_result.metrics.model_copy(update={"gesture_accuracy": rate, "fid": 10 * rate})
                }
            )
            for name, rate in (("sd", theirs), ("hand1000", ours))
        }

    (row,) = advantage_table({"a": gesture(0.6, 0.5), "b": gesture(0.8, 0.5), "c": gesture(0.7, 0.5)}).rows
    # The mean of .1, .3 and .2; 4.30 is Student's 97.5 % point with two degrees of freedom. A larger FID is worse.
    assert row[:2] == ["SD", f"+0.2 ± {4.303 * 0.1 / 3**0.5:.2g}"] and row[6].startswith("-2 ±")


def test_paired_difference_is_significant_if_rare_by_chance() -> None:
    draws = np.random.default_rng(0)
    hard = draws.random(200)  # Some prompts are hard for both.
    second = (hard + 0.1 * draws.normal(size=200) > 0.5).astype(float)
    first = (hard + 0.1 * draws.normal(size=200) > 0.35).astype(float)
    difference = paired_bootstrap(first, second, draws)
    assert difference.low < difference.mean < difference.high and difference.low > 0 and difference.p < 0.001
    assert difference.mean == pytest.approx(first.mean() - second.mean())
    # An unpaired interval of a rate is seven percent wide on either side; the pairs narrow it.
    assert difference.high - difference.low < 0.12
    alike = [paired_bootstrap(*draws.integers(0, 2, (2, 100)).astype(float), draws).p for _ in range(40)]
    assert sum(p < 0.05 for p in alike) <= 6 and max(alike) <= 1
    assert paired_bootstrap(first, first, draws).p == 1
    with pytest.raises(ValueError, match="3 and 2"):
        paired_bootstrap([1, 2, 3], [1, 2], draws)
