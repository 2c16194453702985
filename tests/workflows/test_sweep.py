"""Sweeps: their overrides, their validation, and a whole sweep through `pyflyte run`."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from hand1000.config.settings import load_settings
from hand1000.config.sweep import Sweep, SweepPoint, SweepSettings
from hand1000.core.errors import Hand1000Error
from hand1000.evaluation.image_results import ImageResult
from hand1000.evaluation.metrics import COLUMNS, Metrics
from hand1000.reports.sweep import Trainings, sweep_table
from tests.support.short_demo import PYFLYTE, ROOT, inputs_file

CONFIG = ROOT / "workflows/configs/sweep.yaml"


def test_shipped_sweeps_change_the_settings_of_the_demo() -> None:
    shipped = yaml.safe_load(CONFIG.read_text())
    demo = yaml.safe_load((ROOT / "workflows/configs/demo.yaml").read_text())
    # A sweep registers no model, so that it needs neither prompts without the gesture nor images of an export.
    common = {"preset": "demo", "evaluation": {"general_images": 0, "other_gesture_images": 0, "export_images": 0}}
    # docs/ablations.md was measured with the demo's former sampler.
    common["generation"] = {"sampler": "ddim", "num_inference_steps": 25}
    assert shipped | {"settings": shipped["settings"]["common"]} == demo | {"settings": common}
    settings = SweepSettings.model_validate(shipped["settings"])
    # One point of each sweep changes nothing.
    for name, sweep in settings.sweeps.items():
        assert any(settings.common.with_overrides(point.changes) == settings.common for point in sweep.points), name


def test_override_changes_its_setting_and_no_other() -> None:
    settings = load_settings("default")
    after = settings.with_overrides({"stage3.lora.rank": 7, "seed": 3})
    assert (after.stage3.lora.rank, after.seed) == (7, 3)
    assert after.with_overrides({"stage3.lora.rank": settings.stage3.lora.rank, "seed": settings.seed}) == settings
    for name, value, fault in (
        ("stage2.lambda", 0.5, "no such setting"),
        ("seed.more", 1, "no such setting"),
        ("stage2.lambda_", 2, "stage2.lambda_: Input should be less than"),
    ):
        with pytest.raises(Hand1000Error, match=fault):
            settings.with_overrides({name: value})


@pytest.mark.parametrize(
    ("point", "axis", "fault"),
    [
        ({"label": "1", "images": None, "changes": {"stage4.steps": 1}}, "", "sweeps.one: stage4.steps: no such"),
        ({"label": "all", "images": None, "changes": {}}, "images", "label 'all' is no number"),
        ({"label": "1", "images": 0, "changes": {}}, "images", "greater than or equal to 1"),
        ({"label": "1", "changes": {"seed": 3}}, "", "sweeps.one: a point changes the seed"),
    ],
)
def test_invalid_point_is_an_error_before_the_run(point: dict[str, Any], axis: str, fault: str) -> None:
    common = load_settings("default").model_dump()
    with pytest.raises(ValidationError, match=fault):
        SweepSettings.model_validate(
            {"common": common, "seeds": [1], "sweeps": {"one": {"title": "One", "axis": axis, "points": [point]}}}
        )


def test_points_are_compared_with_the_unchanged_by_image() -> None:
    def metrics(right: str) -> Metrics:
        images = tuple(
            ImageResult(
                file_name=f"{index}.png",
                target_gesture="four",
                predicted_gesture="four" if answer == "y" else None,
                num_hands=1,
                target_probability=0.5,
                handedness_score=0.5,
            )
            for index, answer in enumerate(right)
        )
        unknown = dict.fromkeys(COLUMNS.values())
        rates = {"gesture_accuracy": right.count("y") / len(right), "detection_rate": 1.0, "n_fake": len(right)}
        return Metrics.model_construct(images=images, **unknown | rates)

    def trainings(*right: str) -> Trainings:
        return Trainings([metrics(answers) for answers in right], [metrics("n" * 20)] * len(right), [], {})

    points = [SweepPoint(label="0", images=None, changes={"seed": 1}), SweepPoint(label="1", images=None, changes={})]
    sweep = Sweep(title="A thing", axis="thing", points=points)
    table = sweep_table(sweep, [trainings("y" * 20), trainings("yn" * 10)])
    assert table.header[-1] == "accuracy minus that of 1"
    base, changed, unchanged = (str(row[-1]) for row in table.rows)
    assert base.startswith("-0.500, p = 0.0") and changed.startswith("+0.500, p = 0.0") and unchanged == "–"

    # Of repeated trainings the same, with an interval over them.
    table = sweep_table(sweep, [trainings("y" * 20, "y" * 19 + "n"), trainings("yn" * 10, "ny" * 10)])
    assert [row[1] for row in table.rows] == ["0", "0.975 (0.95 to 1)", "0.5"]
    changed, unchanged = (str(row[-1]) for row in table.rows[1:])
    assert changed.startswith("+0.475 (+0.") and unchanged == "–"


def test_sweep_evaluates_every_point(tmp_path: Path) -> None:
    inputs = yaml.safe_load(inputs_file(tmp_path).read_text())
    points = [
        {"label": "0", "images": None, "changes": {"generation.mu": 0.0}},
        {"label": "1", "images": None, "changes": {"generation.mu": 1.0}},
    ]
    inputs["settings"] = {
        "common": inputs["settings"],
        "seeds": [5, 2000],
        "sweeps": {"mu": {"title": "The <text's> weight", "axis": "mu", "points": points}},
    }
    (tmp_path / "inputs.yaml").write_text(yaml.safe_dump(inputs))
    call = [str(PYFLYTE), "run", "workflows/sweep.py", "sweep", "--inputs-file", str(tmp_path / "inputs.yaml")]
    done = subprocess.run(
        [*call, "--root", str(tmp_path / "root")], cwd=ROOT, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    artifacts = tmp_path / "root" / "artifacts"
    # Both points share a training of each seed on the same images; none is registered.
    assert done.stderr.count("prepare_data: started") == 1
    assert done.stderr.count("train_unet: started") == 2 and done.stderr.count("assemble_model: started") == 4
    # The base model's images depend on the seed alone.
    assert done.stderr.count("generate_base shard 1 of 1: started") == 2
    assert len(list((artifacts / "evaluate").glob("*/tuned.json"))) == 4 and not (artifacts / "register").exists()
    (page,) = (artifacts / "write_sweeps").glob("*/sweeps.html")
    assert sorted(path.name for path in page.parent.iterdir()) == [
        "mu-general.md",
        "mu.md",
        "mu.png",
        "sweeps.html",
    ]
    rows = (page.parent / "mu.md").read_text().splitlines()
    assert [row.split("|")[1].strip() for row in rows] == ["mu", "---", "base model", "0", "1"]
    assert "The &lt;text" in page.read_text()
    rows = (page.parent / "mu-general.md").read_text().splitlines()
    assert [row.split("|")[1].strip() for row in rows[2:]] == ["base model", "0", "1", "equal models, at most"]
    measured = [
        Metrics.model_validate(json.loads(path.read_text())) for path in (artifacts / "evaluate").glob("*/tuned.json")
    ]
    for metrics in measured:
        value, low, high = metrics.interval("detection rate") or (0, 0, 0)
        assert value == metrics.detection_rate and low <= value <= high and high - low > 0.1
