"""The whole job through `pyflyte run`, as a user starts it, with few steps on the model that ships."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from tests.faulty_proxy import FAULTS, faulty_proxy
from tests.mlflow_server import mlflow_server
from tests.short_demo import PYFLYTE, ROOT, command, inputs_file


def run(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(folder, *overrides), cwd=ROOT, capture_output=True, text=True, timeout=280)


def weights(folder: Path) -> str:
    (path,) = (folder / "root" / "artifacts" / "train_unet").glob("*/unet/diffusion_pytorch_model.safetensors")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def kill_at(folder: Path, line: str) -> None:
    """Start the job and kill -9 its process group as soon as it says `line`."""
    with subprocess.Popen(
        command(folder),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        for said in process.stderr:
            if line in said:
                break
        else:
            raise AssertionError(f"never said {line!r}")
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    done = run(folder)
    assert done.returncode == 0, done.stderr[-3000:]
    for expected in ("gesture accuracy", "report.html", "models:/hand1000-four-candidates/1", "hand1000 generate"):
        assert expected in done.stdout
    return folder


def test_a_second_run_recomputes_nothing_and_registers_nothing(undisturbed: Path) -> None:
    done = run(undisturbed)
    assert done.returncode == 0, done.stderr[-3000:]
    assert ": started" not in done.stderr and "train_unet: already there" in done.stderr
    assert "models:/hand1000-four-candidates/1" in done.stdout


def test_killed_in_three_stages_it_ends_in_the_same_bits(undisturbed: Path, tmp_path: Path) -> None:
    for line in ("train_fusion: started", "train_unet: 1/", "draw_base shard 1 of 1: 2/"):
        kill_at(tmp_path, line)
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert weights(tmp_path) == weights(undisturbed)
    assert not list((tmp_path / "root" / "checkpoints").rglob("*.safetensors"))


def uploaded(folder: Path, address: str) -> str:
    """The files of `folder` below an `s3://` address."""
    from hand1000.storage.digests import tree_manifest
    from hand1000.storage.s3 import S3Place

    S3Place(address).put_tree(folder, "all", tree_manifest(folder))
    return f"{address}/all"


def test_on_a_failing_s3_with_a_server_three_shards_give_the_same_and_leave_nothing_elsewhere(
    undisturbed: Path, s3_server: str, s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All lies in the bucket: data, base model, artifacts. One request in fifty fails in each of its ways."""
    from hand1000.data.render.dataset import default_cache, render_dataset
    from hand1000.storage.digests import Manifest
    from hand1000.storage.s3 import S3Place

    inputs = yaml.safe_load(inputs_file(tmp_path).read_text())
    counts = {"train": inputs["images"], "test": inputs["settings"]["data"]["test_images"]}
    render_dataset(tmp_path / "pictures", {"four": counts}, seed=1000, size=64)
    data = uploaded(tmp_path / "pictures", f"{s3_root}-data")
    base_model = uploaded(ROOT / "models/small-base", f"{s3_root}-base")
    (tmp_path / "server").mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    before = set(ROOT.iterdir())
    partial, place = [], S3Place(s3_root)
    bucket, _, prefix = s3_root.removeprefix("s3://").partition("/")

    def whole(key: str) -> None:
        """What a manifest lists must be there by the time that anybody can see it."""
        name = key.removeprefix(f"{bucket}/{prefix}/")
        if name.startswith("artifacts/") and name.endswith(".json") and name.count("/") == 2:
            tree = name.removesuffix(".json")
            manifest = Manifest.model_validate_json(place.read(name) or b"")
            listed = {entry.name: entry.size for entry in manifest.files}
            if place.sizes(tree) != listed:
                partial.append(name)

    with (
        mlflow_server(tmp_path / "server", f"{s3_root}-mlflow") as uri,
        faulty_proxy(s3_server, share=0.02, seed=5) as proxy,
    ):
        proxy.written = whole
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        # Rendered pictures, and the fonts that matplotlib found, are kept from run to run and belong to none.
        monkeypatch.setenv("HAND1000_CACHE", str(default_cache().parent))
        monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "fonts"))
        for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME"):
            monkeypatch.setenv(name, str(elsewhere))
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        done = run(tmp_path, "--root", s3_root, "--shards", "3", "--data", data, "--base_model", base_model)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server)
    assert done.returncode == 0, done.stderr[-3000:]
    assert partial == []
    assert proxy.requests > 300 and all(proxy.struck[fault] for fault in FAULTS), proxy.struck
    stored = place.sizes("artifacts")
    for kind in ("train_unet", "evaluate"):
        (digest,) = (path.name for path in (undisturbed / "root/artifacts" / kind).iterdir() if path.is_dir())
        assert f"{kind}/{digest}.json" in stored
    registered = S3Place(f"{s3_root}-mlflow").sizes("")
    assert any(name.endswith("unet/diffusion_pytorch_model.safetensors") for name in registered)
    assert [path for path in elsewhere.rglob("*") if path.is_file()] == []
    assert set(ROOT.iterdir()) == before


def test_a_fault_of_the_input_is_one_line(s3_server: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    faults = {
        ("--gesture", "foo"): "unknown gesture 'foo'",
        ("--gesture", "four,ok,four"): "gesture: four stands twice in 'four,ok,four'",
        ("--data", "no/such/folder"): "no/such/folder: no such folder",
        ("--data", str(tmp_path / "empty")): f"{tmp_path / 'empty'}: no pictures of 'four'; it is empty",
        ("--base_model", "no/such/folder"): "no/such/folder",
        ("--root", "s3://no-such-bucket-of-ours/x"): "no-such-bucket-of-ours",
    }
    with ThreadPoolExecutor(2) as pool:  # A run takes seconds to start, and they have nothing to do with each other.
        runs = pool.map(lambda number: run(folder_of(tmp_path, number), *list(faults)[number]), range(len(faults)))
    for said, done in zip(faults.values(), runs, strict=True):
        lines = [line for line in done.stderr.splitlines() if line.startswith("hand1000: error:")]
        assert done.returncode == 2 and len(lines) == 1 and said in lines[0], done.stderr[-3000:]
        assert "Traceback" not in done.stderr


def folder_of(parent: Path, number: int) -> Path:
    folder = parent / str(number)
    folder.mkdir()
    return folder


def test_a_setting_out_of_range_names_the_field(tmp_path: Path) -> None:
    path = inputs_file(tmp_path)
    inputs = yaml.safe_load(path.read_text())
    inputs["settings"]["stage2"]["lambda_"] = 1.5
    path.write_text(yaml.safe_dump(inputs))
    call = [str(PYFLYTE), "run", "workflows/train_gesture.py", "train_gesture", "--inputs-file", str(path)]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode != 0 and "lambda_" in done.stdout + done.stderr


def test_nothing_heavy_is_imported_with_the_workflows() -> None:
    heavy = "{'torch', 'diffusers', 'transformers', 'mediapipe', 'mlflow', 'boto3', 'mitsuba', 'cv2', 'skimage'}"
    code = f"import sys, workflows.train_gesture, workflows.pretrain_base; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.stdout.strip() == "set()", done.stderr
