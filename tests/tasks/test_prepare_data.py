"""What of the data is not used is said in the terminal and in MLflow, also by a run that finds it prepared."""

from pathlib import Path

from flytekit.types.directory import FlyteDirectory
from mlflow import MlflowClient

from hand1000.config.settings import load_settings
from hand1000.data.imageset import read_image_set
from hand1000.data.prepare import REPORT, PreparationReport
from hand1000.storage.artifacts import open_store
from hand1000.storage.exclusions import add_exclusions
from hand1000.storage.files import read_json
from tasks.context import RunContext, address
from tasks.prepare_data import prepare_data
from tasks.start_run import start_run
from tests.support.hagrid_source import data_settings
from tests.support.layouts import BOX, facts, jsonl, write_images
from tests.support.short_demo import ROOT


def prepare(root: Path, source: Path, run_id: str) -> Path:
    """Call the task as a workflow does, and return its artifact."""
    run = RunContext(root=str(root), run_id=run_id)
    artifact = prepare_data(
        run=run,
        gesture="four",
        images=6,
        data=str(source),
        base_model=str(ROOT / "models/small-base"),
        settings=data_settings(0.2),
        seed=1,
    )
    return Path(address(artifact))


def test_dropped_boxes_and_lost_people_are_said_everywhere(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    source = tmp_path / "source"
    write_images(source)
    rows = [facts(index, file_name=f"{index}.png") for index in range(8)]
    rows[0]["bbox"], rows[3]["bbox"] = [2, 2, 12, 12], None
    del rows[5]["user_id"]
    jsonl(source / "metadata.jsonl", [*rows, {"file_name": "4.png", "bbox": [0, 0, 1, 1]}])
    lines = (
        "box not usable: 1 (0.png: metadata.jsonl: line 1: box 1: it is outside the image: [2, 2, 12, 12]",
        "boxes contradict: 1 (4.png: metadata.jsonl: line 5, metadata.jsonl: line 9)",
        "image without a person beside images with one: 1 (5.png)",
    )
    for run_id in ("first", "second"):
        folder = prepare(tmp_path / "root", source, run_id)
        output = capsys.readouterr().out
        assert "not used of the data:" in output and all(line in output for line in lines)
        run = RunContext(root=str(tmp_path / "root"), run_id=run_id).open_tracker()
        stored = run.tracking.client.get_run(run.run_id)
        assert {name: value for name, value in stored.data.metrics.items() if name.startswith("data/")} == {
            "data/box not usable": 1, "data/boxes contradict": 1,
            "data/image without a person beside images with one": 1,
        }  # fmt: skip
        assert all(line in stored.data.tags["hand1000.data_problems"] for line in lines)
        assert isinstance(run.tracking.client, MlflowClient)
        assert [file.path for file in run.tracking.client.list_artifacts(run.run_id, "data")] == [f"data/{REPORT}"]
    report = PreparationReport.model_validate(read_json(folder / REPORT))
    assert [problem.kind for problem in report.problems] == [line.partition(":")[0] for line in lines]


def test_a_clean_source_says_nothing(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    write_images(tmp_path / "source")
    jsonl(tmp_path / "source" / "metadata.jsonl", [facts(i, file_name=f"{i}.png", bbox=BOX) for i in range(8)])
    folder = prepare(tmp_path / "root", tmp_path / "source", "")
    assert "not used" not in capsys.readouterr().out and "problems" not in read_json(folder / REPORT)


def test_forgotten_people_do_not_come_back(tmp_path, capsys) -> None:
    source, root = tmp_path / "source", tmp_path / "root"
    write_images(source)
    jsonl(source / "metadata.jsonl", [facts(i, file_name=f"{i}.png", bbox=BOX) for i in range(8)])
    before = prepare(root, source, "")
    (result,) = root.glob("results/prepare_data/*.json")
    add_exclusions(open_store(str(root)).backend, ["p1"], ["7"])
    after = prepare(root, source, "")
    records = [record for split in ("train", "test") for record in read_image_set(after / split)]
    assert before != after and sorted(record.file_name[0] for record in records) == ["0", "1", "4", "5", "6"]
    assert "p1" not in {record.user_id for record in records}
    # The list alone changes the key: the digest of an empty one is not part of it.
    assert len(list(root.glob("results/prepare_data/*.json"))) == 2 and result.is_file()
    assert "p1" not in "".join(path.read_text() for path in (root / "exclusions").iterdir())


def test_forgotten_rendered_people_do_not_come_back(tmp_path) -> None:
    def people() -> set[str]:
        artifact = prepare(tmp_path, Path("sample"), "")
        return {record.user_id for split in ("train", "test") for record in read_image_set(artifact / split)}

    before = people()
    add_exclusions(open_store(str(tmp_path)).backend, [sorted(before)[0]], [])
    assert people() == before - {sorted(before)[0]}


def test_other_images_at_the_same_address_are_another_run(tmp_path, monkeypatch) -> None:
    """A run keeps the first metrics that it records: those of the next retraining would be lost."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def start(content: str) -> str:
        dataset = FlyteDirectory(f"{tmp_path}/artifacts/prepare_data/{content * 64}", remote_directory=False)
        Path(dataset.path).mkdir(parents=True, exist_ok=True)
        inputs = {"gesture": "four", "images": 6, "data": "images", "base_model": str(ROOT / "models/small-base")}
        return start_run(**inputs, settings=load_settings("demo"), root=str(tmp_path), dataset=dataset).run_id

    first = start("a")
    assert start("b") != first and start("a") == first
