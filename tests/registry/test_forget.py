"""People and images are removed with all that was made from them, from a folder and from a bucket."""

from pathlib import Path

import pytest
import yaml

from hand1000.cli.main import main
from hand1000.config.caption_settings import DatasetSettings
from hand1000.data.excluded_images import find_excluded_images, parse_image_id
from hand1000.data.imageset import read_image_set
from hand1000.registry.connection import connect
from hand1000.registry.recorder import Recording, RunRecorder
from hand1000.registry.register import register_candidate
from hand1000.registry.tracking import RunTracker, find_run
from hand1000.registry.unsent import Outbox
from hand1000.registry.versions import DATASET, FORGOTTEN
from hand1000.storage.artifacts import ArtifactStore, open_store
from hand1000.storage.digests import digest_file
from hand1000.storage.exclusions import Exclusions, read_exclusions
from hand1000.storage.inventory import list_pieces
from hand1000.storage.records import decode_record, encode_record
from tasks.build_dataset import caption_images, publish
from tasks.context import RunContext, address, artifact_name
from tasks.prepare_data import prepare_data
from tests.support.hagrid_source import NO_FILTERS
from tests.support.layouts import BOX, facts, jsonl, write_images
from tests.support.retention import save_model
from tests.support.short_demo import ROOT
from tests.support.stores import SimulatedKill, folder_with, fresh


def prepare(root: str, source: Path):
    """Prepare the source; return the artifact and the settings."""
    values = yaml.safe_load((ROOT / "workflows/configs/dataset.yaml").read_text())["settings"]
    values |= {"clip": ""}
    settings = DatasetSettings.model_validate(values)
    data = settings.data.model_copy(update={"test_images": 2, "filters": NO_FILTERS, "max_unusable": 0.0})
    run = RunContext(root=root)
    dataset = prepare_data(
        run=run, gesture="four", images=6, data=str(source), base_model=str(ROOT / "models/small-base"),
        settings=data, seed=1,
    )  # fmt: skip
    return dataset, settings


def fill(root: str, folder: Path, registry: Path) -> dict[str, str]:
    """Make a root with a dataset of 4 people, captions, a published dataset, a feature, a candidate with its report.

    Returns the names of the artifacts.
    """
    source, store, run = folder / "source", open_store(root), RunContext(root=root)
    write_images(source)
    jsonl(source / "metadata.jsonl", [facts(i, file_name=f"{i}.png", bbox=BOX) for i in range(8)])
    dataset, settings = prepare(root, source)
    captions = caption_images(
        run=run, dataset=dataset, settings=settings_of(settings), base_model=str(ROOT / "models/small-base"),
        keep_captions=False, shard=0, shards=1,
    )  # fmt: skip
    published = publish(run=run, dataset=dataset, captions=[captions], gesture="four", settings=settings, shards=1)
    names = {"dataset": artifact_name(dataset), "captions": artifact_name(captions)}
    names["published"] = artifact_name(published)
    for kind, sources in (("encode_dataset", ["dataset", "captions"]), ("train_unet", ["encode_dataset"])):
        made = store.publish(kind, folder_with(folder / kind, {"data.txt": kind}))
        record = {"address": made, "seconds": 1.0, "sources": [names[name] for name in sources]}
        store.put_result(kind, "1" * 64, record)
        names[kind] = "/".join(made.rsplit("/", 2)[1:])
    tracker = RunTracker("hand1000", "first", connect(registry))
    tracker.log_params({"gesture": "four", "images": 6, "data": str(source), "base_model": "models/small-base"})
    for kind, name in (("prepare_data", "dataset"), ("train_unet", "train_unet")):
        child = tracker.child_run(kind)
        child.set_tags({"hand1000.artifact.all": f"artifacts/{names[name]}"})
        child.finish()
    for name, folder_name in (("report.html", None), ("gates.json", None), ("images.png", "images")):
        path = folder / name
        path.write_text(name)
        tracker.log_file(path, folder_name)
    register_candidate(
        tracker, save_model(folder / "model", "a"), gestures=("four",), metrics={}, card="card",
        tags={DATASET: names["dataset"].rpartition("/")[2]},
    )  # fmt: skip
    tracker.finish()
    crops = {path.stem: digest_file(path) for path in store.fetch(address(dataset)).glob("*/*.png")}
    store.key_value_cache("captions", "0" * 64).add({digest: f"caption {name}" for name, digest in crops.items()})
    drawn = store.publish("generate_tuned", folder_with(folder / "drawn", {"0.png": "a generated image"}))
    record = {"address": drawn, "seconds": 1.0, "sources": [names["train_unet"]]}
    store.put_result("generate_tuned", "1" * 64, record)
    evaluated = {digest_file(path): path.stem for path in source.glob("*.png")}
    evaluated |= {digest_file(path): "generated" for path in store.fetch(drawn).glob("*.png")}
    store.key_value_cache("image_features", "0" * 64).add(evaluated)
    store.backend.write(f"unsent/{'0' * 20}-{'0' * 64}.bin", b"a page that waits")
    store.checkpoint("train_unet", "2" * 64).save(folder_with(folder / "state", {"step": "3"}))
    return names


def settings_of(settings: DatasetSettings):
    """The settings of one captioner."""
    from tasks.build_dataset import captioning_jobs

    return captioning_jobs(gesture="four", settings=settings, shards=1)[0][0]


@pytest.fixture(params=["folder", "bucket"])
def place(request, runs):
    """The address of a root and the folder of its MLflow."""
    return (str(runs) if request.param == "folder" else request.getfixturevalue("s3_root")), runs


def forget(root: str, registry: Path, *options: str) -> int:
    return main(["data", "forget", "--root", root, "--registry", str(registry), *options])


def holds(store: ArtifactStore, data: bytes) -> list[str]:
    """The files below a root that hold these bytes."""
    keys = [file.key for file in store.backend.list_files("artifacts")]
    return [key for key in keys if data in (store.backend.read(key) or b"")]


def test_a_person_is_gone_and_does_not_come_back(place, tmp_path, capsys):
    root, registry = place
    names = fill(root, tmp_path, registry)
    store = open_store(root)
    crops = {path.name: path.read_bytes() for path in store.fetch(f"{root}/artifacts/{names['dataset']}").glob("*/*")}
    capsys.readouterr()

    assert forget(root, registry, "--user-id", "p1", "--dry-run") == 0
    plan = capsys.readouterr().out
    assert "images of them: 4 in 2 artifacts" in plan and plan.endswith("nothing removed (--dry-run)\n")
    assert all(name in plan for name in names.values()) and not read_exclusions(store.backend)
    assert "models:/hand1000-four-candidates/1: waits for a decision" in plan
    command = "retrain: pyflyte run workflows/retrain.py retrain --inputs-file workflows/configs/retrain.yaml"
    assert f"{command} --gesture four --images 6 --data {tmp_path / 'source'}" in plan
    assert f"{tmp_path / 'source'}: a source of images; remove them there" in plan
    assert holds(fresh(store), crops["2.png"])

    assert forget(root, registry, "--user-id", "p1") == 0
    output = capsys.readouterr().out
    seen = fresh(open_store(root))
    assert not any(holds(seen, crops[name]) for name in ("2.png", "3.png")) and not holds(seen, b'"p1"')
    kinds = {file.key.split("/")[1] for file in seen.backend.list_files("artifacts")}
    assert kinds == {"publish"} and not list(seen.backend.list_files("checkpoints"))
    assert not list(seen.backend.list_files("unsent"))
    cached = seen.key_value_cache("captions", "0" * 64).read()
    assert sorted(cached.values()) == [f"caption {i}" for i in (0, 1, 4, 5, 6, 7)]
    evaluated = seen.key_value_cache("image_features", "0" * 64).read()
    assert sorted(evaluated.values()) == ["0", "1", "4", "5", "6", "7"]
    (replaced,) = [line for line in output.splitlines() if line.startswith("replaced ")]
    published = seen.fetch(replaced.split()[-1])
    counts = [len(read_image_set(published / split)) for split in ("train", "test")]
    assert (
        sum(counts) == 6
        and f"{counts[0]} training and {counts[1]} test images" in (published / "README.md").read_text()
    )
    assert not (published / "captions.html").exists()

    tracking = connect(registry)
    version = tracking.client.get_model_version("hand1000-four-candidates", "1")
    assert FORGOTTEN in version.tags
    assert [file.path for file in tracking.client.list_artifacts(version.run_id)] == ["gates.json"]

    # The same source gives a dataset without them, and the model is still named as trained on them.
    dataset, _ = prepare(root, tmp_path / "source")
    folder = seen.fetch(address(dataset))
    assert {record.user_id for split in ("train", "test") for record in read_image_set(folder / split)} == {
        "p0",
        "p2",
        "p3",
    }
    assert forget(root, registry) == 0
    output = capsys.readouterr().out
    assert "images of them: 0 in 0 artifacts" in output and "models:/hand1000-four-candidates/1: waits" in output
    assert seen.is_complete(address(dataset))


@pytest.mark.parametrize(
    ("name", "key"),
    [("a.png", "a"), ("a.TIFF", "a"), ("a.bmp", "a"), ("a.heif", "a"), ("x/a.avif", "a"), ("four/a.gif", "four/a"),
     ("four/a", "four/a"), ("a_1", "a_1")],
)  # fmt: skip
def test_an_image_is_named_with_any_suffix_or_without(name, key):
    assert parse_image_id(name) == key


def test_metadata_that_cannot_be_read_may_hold_anybody(tmp_path):
    store = open_store(str(tmp_path / "root"))
    store.publish("prepare_data", folder_with(tmp_path / "made", {"train/metadata.jsonl": "[" * 5000}))
    (piece,) = (piece for piece in list_pieces(store) if piece.kind == "prepare_data")
    found = find_excluded_images(store, piece, Exclusions().extended(["p1"], []))
    assert found and "train/metadata.jsonl: too many levels" in found.unreadable


def test_an_image_and_a_file_of_people(runs, tmp_path, capsys):
    fill(str(runs), tmp_path, runs)
    (tmp_path / "ids").write_text("p0\np3\n")
    assert forget(str(runs), runs, "--image", "four/2.png", "--file", str(tmp_path / "ids")) == 0
    assert "images of them: 10 in 2 artifacts" in capsys.readouterr().out
    folder = Path(address(prepare(str(runs), tmp_path / "source")[0]))
    assert sorted(path.name for path in folder.glob("*/*.png")) == ["3.png", "4.png", "5.png"]


@pytest.mark.parametrize("fatal_call", [1, 6, 12])
def test_interrupted_at_any_removal_it_is_finished_later(runs, tmp_path, monkeypatch, fatal_call):
    fill(str(runs), tmp_path, runs)
    store = open_store(str(runs))
    with monkeypatch.context() as patch:
        calls = []
        original = type(store.backend).remove

        def remove(self, key):
            calls.append(key)
            if len(calls) == fatal_call:
                raise SimulatedKill
            original(self, key)

        patch.setattr(type(store.backend), "remove", remove)
        with pytest.raises(SimulatedKill):
            forget(str(runs), runs, "--user-id", "p1")
    assert forget(str(runs), runs) == 0
    assert {path.parent.name for path in (runs / "artifacts").glob("*/*")} <= {"publish"}
    assert len(list((runs / "artifacts/publish").glob("*.json"))) == 1 and not list(
        (runs / "checkpoints").rglob("*.json")
    )
    assert not [path for path in (runs / "artifacts").rglob("2.png")]


def test_artifacts_without_recorded_sources_are_found(runs, tmp_path):
    """As an earlier hand1000 left them: by the image's name in their files, or by the MLflow run of the dataset."""
    fill(str(runs), tmp_path, runs)
    for path in [*runs.glob("results/*/*.json"), *runs.glob("provenance/*/*.json")]:
        name = path.relative_to(runs).as_posix()
        record = decode_record(name, path.read_bytes())
        path.write_bytes(encode_record(name, {key: value for key, value in record.items() if key != "sources"}))
    assert forget(str(runs), runs, "--user-id", "p1") == 0
    left = {path.parent.name for path in (runs / "artifacts").glob("*/*")}
    # Nothing names the images in them, and no run recorded them.
    assert left == {"publish", "encode_dataset", "generate_tuned"}


def test_a_run_whose_records_still_wait_is_cleaned_too(runs, tmp_path):
    names = fill(str(runs), tmp_path, runs)
    recording = Recording(Outbox(open_store(str(runs)).backend), lambda: connect(runs))
    recording.outage.prolong()
    late = RunRecorder(recording, "late")
    late.child_run("prepare_data").set_tags({"hand1000.artifact.all": f"artifacts/{names['dataset']}"})
    late.log_file(tmp_path / "report.html")
    assert forget(str(runs), runs, "--user-id", "p1") == 0
    tracking = connect(runs)
    run = find_run(tracking, "late")
    assert run is not None and FORGOTTEN in run.data.tags and not tracking.client.list_artifacts(run.info.run_id)


def test_what_does_not_name_anybody_is_refused(runs, tmp_path, capsys):
    assert forget(str(runs), runs) == 2 and "its exclusion list is empty; name a person" in capsys.readouterr().err
    assert forget(str(runs), runs, "--file", str(tmp_path / "none")) == 2
    assert "none: cannot be read" in capsys.readouterr().err
    assert main(["data", "forget", "--root", str(tmp_path / "nowhere"), "--user-id", "a"]) == 2
    assert "nowhere: no such folder" in capsys.readouterr().err and not (tmp_path / "nowhere").exists()


def test_a_root_without_mlflow_is_cleaned_too(tmp_path, capsys):
    write_images(tmp_path / "source")
    dataset, _ = prepare(str(tmp_path / "root"), tmp_path / "source")
    user = digest_file(tmp_path / "source/3.png")  # An image without a person is a person of its own.
    assert main(["data", "forget", "--root", str(tmp_path / "root"), "--user-id", user]) == 0
    assert "no MLflow was found" in capsys.readouterr().out and not Path(address(dataset)).exists()
