"""The comparison of systems: its tables, and a whole one through `pyflyte run`."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from hand1000.comparison_settings import ComparisonSettings, without_fusion
from hand1000.evaluation.paired import paired_difference
from hand1000.evaluation.systems import SYSTEMS, Cell, Cost, cost_of, firsts, gesture_table, mean_table, paired_table
from hand1000.settings import load_settings
from tests.short_demo import PYFLYTE, ROOT, inputs_file


def test_the_shipped_comparison_is_the_demos_with_more_pictures() -> None:
    shipped = yaml.safe_load((ROOT / "workflows/configs/compare.yaml").read_text())
    demo = yaml.safe_load((ROOT / "workflows/configs/demo.yaml").read_text())
    demo["settings"]["data"]["test_images"] = demo["settings"]["generation"]["num_images"] = 200
    assert shipped["settings"]["common"] == demo["settings"]
    ComparisonSettings.model_validate(shipped["settings"])


def test_fine_tuning_without_fusion_differs_in_nothing_but_the_fusion() -> None:
    settings = load_settings("default")
    plain = without_fusion(settings)
    assert plain.stage3 == settings.stage3 and plain.data == settings.data
    assert (plain.stage2.lambda_, plain.generation.mu) == (1, 1)
    without_fusion(load_settings("paper"))


def test_a_cost_is_that_of_all_that_had_to_be_done() -> None:
    trained = [{"seconds": 60.0, "peak_bytes": 3}, {"seconds": 40.0, "peak_bytes": 9}]
    cost = cost_of(trained, [{"seconds": 5.0, "peak_bytes": 1}], [{"seconds": 3.0}, {}], n=4)
    assert cost == Cost(train_seconds=100.0, image_seconds=2.0, peak_bytes=9)


def test_five_systems_are_compared_and_put_side_by_side(tmp_path: Path) -> None:
    inputs = yaml.safe_load(inputs_file(tmp_path).read_text())
    shipped = yaml.safe_load((ROOT / "workflows/configs/compare.yaml").read_text())["settings"]
    imagic = shipped["imagic"] | {"embedding_steps": 2, "unet_steps": 2, "num_inference_steps": 2}
    inputs["settings"] = {"common": inputs["settings"], "imagic": imagic}
    inputs["gestures"] = inputs.pop("gesture")
    (tmp_path / "inputs.yaml").write_text(yaml.safe_dump(inputs))
    call = [str(PYFLYTE), "run", "workflows/compare_methods.py", "compare_methods"]
    call += ["--inputs-file", str(tmp_path / "inputs.yaml"), "--root", str(tmp_path / "root")]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    (page,) = (tmp_path / "root" / "artifacts" / "write_comparison").glob("*/comparison.html")
    assert str(page) in done.stdout and "| Hand1000 |" in done.stdout

    drawn = [name for name in SYSTEMS if name != "sd_handrefiner"]
    written = json.loads((page.parent / "comparison.json").read_text())
    assert list(written) == ["four"] and set(written["four"]) == set(drawn)
    cells = {"four": {name: Cell.model_validate(written["four"][name]) for name in drawn}}
    for name, cell in cells["four"].items():
        # The same prompts and seeds for each.
        assert [one.file_name for one in cell.metrics.pictures] == [f"{index:06d}.png" for index in range(6)]
        assert (cell.cost.train_seconds > 0) == ("tuned" in name or name == "hand1000")
        assert cell.cost.image_seconds > 0 and cell.cost.peak_bytes > 1e8
    assert cells["four"]["sd_imagic"].cost.image_seconds > cells["four"]["sd"].cost.image_seconds
    with Image.open(page.parent / "pictures.png") as sheet:
        assert sheet.size[0] > 3 * 64 and sheet.size[1] > 5 * 64

    paired = paired_table(cells).splitlines()[2:]
    assert [line.split("|")[1].strip() for line in paired] == [SYSTEMS[name] for name in drawn if name != "hand1000"]
    assert all("p = " in line for line in paired) and paired[0] in (page.parent / "tables.md").read_text()

    table = gesture_table(cells["four"])
    assert table.count("\n") == 2 + len(drawn)
    # Where two gestures are alike, their mean is each of them.
    twice = {"four": cells["four"], "ok": cells["four"]}
    assert mean_table(twice) == mean_table(cells) and mean_table(cells).splitlines()[2].startswith("| SD | ")
    best = max(cells["four"], key=lambda name: cells["four"][name].metrics.detection_rate)
    assert firsts(twice, best, "detection rate") == 2
    (row,) = (row for row in table.splitlines() if row.startswith(f"| {SYSTEMS[best]} |"))
    assert row.split("|")[3].strip().startswith("**")


def test_a_difference_is_real_when_chance_gives_it_seldom() -> None:
    draws = np.random.default_rng(0)
    hard = draws.random(200)  # Some prompts are hard for both.
    second = (hard + 0.1 * draws.normal(size=200) > 0.5).astype(float)
    first = (hard + 0.1 * draws.normal(size=200) > 0.35).astype(float)
    found = paired_difference(first, second, draws)
    assert found.low < found.mean < found.high and found.low > 0 and found.p < 0.001
    assert found.mean == pytest.approx(first.mean() - second.mean())
    # By itself each rate is known to seven percent only: the pairs tell more.
    assert found.high - found.low < 0.12
    alike = [paired_difference(*draws.integers(0, 2, (2, 100)).astype(float), draws).p for _ in range(40)]
    assert sum(p < 0.05 for p in alike) <= 6 and max(alike) <= 1
    assert paired_difference(first, first, draws).p == 1
    with pytest.raises(ValueError, match="3 and 2"):
        paired_difference([1, 2, 3], [1, 2], draws)
