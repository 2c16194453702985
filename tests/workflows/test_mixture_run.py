"""Whole runs of several gestures through `pyflyte run`."""

import subprocess
from pathlib import Path

import yaml

from hand1000.cli.main import main
from hand1000.data.imageset import read_image_set
from hand1000.evaluation.metrics import Metrics
from hand1000.gestures import PHRASES
from hand1000.hands.stage1 import load_features
from hand1000.models.fusion import load_fusion
from hand1000.registry.connection import connect
from hand1000.registry.tracking import RunTracker
from tests.support.short_demo import PYFLYTE, ROOT, inputs_file


def test_one_model_generates_two_gestures(tmp_path: Path) -> None:
    """Each of the two shards has images of both gestures."""
    inputs = yaml.safe_load(inputs_file(tmp_path, test_images=2).read_text())
    inputs["settings"]["generation"].update(num_images=3, batch_size=1)
    (tmp_path / "inputs.yaml").write_text(yaml.safe_dump(inputs | {"gesture": "ok,four", "images": 3, "shards": 2}))
    call = [str(PYFLYTE), "run", "workflows/train_gesture.py", "train_gesture"]
    call += ["--inputs-file", str(tmp_path / "inputs.yaml"), "--root", str(tmp_path / "root")]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "models:/hand1000-ok-four-candidates/1" in done.stdout
    assert [line.split()[-1] for line in done.stdout.splitlines() if line.startswith(("ok ", "four "))] == ["3", "3"]
    artifacts = tmp_path / "root" / "artifacts"

    (dataset,) = (artifacts / "prepare_data").glob("*/preparation.json")
    counts = {side: [record.gesture for record in read_image_set(dataset.parent / side)] for side in ("train", "test")}
    assert {side: sorted(gestures) for side, gestures in counts.items()} == {
        "train": ["four"] * 3 + ["ok"] * 3,
        "test": ["four"] * 2 + ["ok"] * 2,
    }
    (feature,) = (artifacts / "compute_gesture_feature").glob("*/gesture.json")
    first, second = load_features(feature.parent)
    assert (first.gesture, second.gesture, first.images, second.images) == ("ok", "four", 3, 3)
    assert abs(first.mean - second.mean).max() > 0.1

    shards = [folder for folder in (artifacts / "generate_tuned").iterdir() if folder.is_dir()]
    records = [record for shard in shards for record in read_image_set(shard)]
    records.sort(key=lambda record: record.file_name)
    assert [record.seed for record in records] == list(range(1000, 1006))
    gestures = [record.gesture for record in records]
    assert sorted(gestures[:2]) == ["four", "ok"] and gestures == 3 * gestures[:2]  # The gestures alternate.
    assert all(record.text.endswith(PHRASES[record.gesture]) for record in records)
    # The prompts of a gesture start over when they are used up.
    assert records[0].text == records[4].text and records[1].text == records[5].text

    (tuned,) = (artifacts / "evaluate").glob("*/tuned.json")
    metrics = Metrics.model_validate_json(tuned.read_text())
    assert [image.target_gesture for image in metrics.images] == gestures
    assert {gesture: (own.n_real, own.n_fake) for gesture, own in metrics.by_gesture.items()} == {
        "four": (2, 3),
        "ok": (2, 3),
    }
    (report,) = (artifacts / "register").glob("*/report.html")
    assert "gesture accuracy, ok ↑" in report.read_text()
    tracking = connect(tmp_path / "root")
    (logged,) = tracking.client.search_runs([RunTracker("hand1000", "probe", tracking).experiment_id],
                                            "metrics.`tuned/gesture accuracy/four` >= 0")  # fmt: skip
    assert logged.data.metrics["tuned/gesture accuracy/ok"] == metrics.by_gesture["ok"].gesture_accuracy

    (model,) = (path.parent for path in (artifacts / "assemble_model").glob("*/model_index.json"))
    assert load_fusion(model / "fusion").gestures == ("ok", "four")
    for gesture in ("ok", "four"):
        assert main(["generate", "--model", str(model), "--prompt", f"a hand, {PHRASES[gesture]}", "--num", "1",
                     "--out", str(tmp_path / f"{gesture}.png"), "--steps", "1"]) == 0  # fmt: skip


def test_flat_fusion_refuses_several_gestures(tmp_path: Path) -> None:
    path = inputs_file(tmp_path)
    inputs = yaml.safe_load(path.read_text())
    inputs["settings"] = {"preset": "paper"}
    path.write_text(yaml.safe_dump(inputs | {"gesture": "four,ok"}))
    call = [str(PYFLYTE), "run", "workflows/train_gesture.py", "train_gesture", "--inputs-file", str(path)]
    done = subprocess.run(
        [*call, "--root", str(tmp_path / "root")], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 2 and "stage2.fusion: flat holds one gesture, not four, ok" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "root" / "artifacts").exists()
