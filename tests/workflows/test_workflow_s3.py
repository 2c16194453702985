"""The whole workflow with everything on S3, where one request in fifty fails."""

from pathlib import Path

import pytest
import yaml

from tests.support.faulty_proxy import FAULTS, faulty_proxy
from tests.support.mlflow_server import mlflow_server
from tests.support.short_demo import ROOT, inputs_file, run


def upload(folder: Path, address: str) -> str:
    """Upload the files of `folder` below an `s3://` address and return their address."""
    from hand1000.storage.digests import tree_manifest
    from hand1000.storage.s3 import S3Backend

    S3Backend(address).put_tree(folder, "all", tree_manifest(folder))
    return f"{address}/all"


def test_three_shards_on_a_failing_s3_give_the_same_artifacts(
    finished_run: Path, s3_server: str, s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data, base model and artifacts are in the bucket. One request in fifty fails; no file is left elsewhere."""
    from hand1000.data.render.dataset import default_cache, render_dataset
    from hand1000.storage.digests import Manifest
    from hand1000.storage.s3 import S3Backend

    inputs = yaml.safe_load(inputs_file(tmp_path).read_text())
    counts = {"train": inputs["images"], "test": inputs["settings"]["data"]["test_images"]}
    render_dataset(tmp_path / "images", {"four": counts}, seed=1000, size=64)
    data = upload(tmp_path / "images", f"{s3_root}-data")
    base_model = upload(ROOT / "models/small-base", f"{s3_root}-base")
    (tmp_path / "server").mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    before = set(ROOT.iterdir())
    incomplete, backend = [], S3Backend(s3_root)
    bucket, _, prefix = s3_root.removeprefix("s3://").partition("/")

    def check_files(key: str) -> None:
        """Check that the files of a manifest exist as soon as the manifest exists."""
        name = key.removeprefix(f"{bucket}/{prefix}/")
        if name.startswith("artifacts/") and name.endswith(".json") and name.count("/") == 2:
            tree = name.removesuffix(".json")
            manifest = Manifest.model_validate_json(backend.read(name) or b"")
            listed = {entry.name: entry.size for entry in manifest.files}
            if backend.file_sizes(tree) != listed:
                incomplete.append(name)

    with (
        mlflow_server(tmp_path / "server", f"{s3_root}-mlflow") as uri,
        faulty_proxy(s3_server, share=0.02, seed=5) as proxy,
    ):
        proxy.written = check_files
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        # The caches of rendered images and of matplotlib's fonts are shared by all runs.
        monkeypatch.setenv("HAND1000_CACHE", str(default_cache().parent))
        monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "fonts"))
        for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME"):
            monkeypatch.setenv(name, str(elsewhere))
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        done = run(tmp_path, "--root", s3_root, "--shards", "3", "--data", data, "--base_model", base_model)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server)
    assert done.returncode == 0, done.stderr[-3000:]
    assert incomplete == []
    assert proxy.requests > 300 and all(proxy.struck[fault] for fault in FAULTS), proxy.struck
    stored = backend.file_sizes("artifacts")
    for kind in ("train_unet", "evaluate"):
        (digest,) = (path.name for path in (finished_run / "root/artifacts" / kind).iterdir() if path.is_dir())
        assert f"{kind}/{digest}.json" in stored
    registered = S3Backend(f"{s3_root}-mlflow").file_sizes("")
    assert any(name.endswith("unet/diffusion_pytorch_model.safetensors") for name in registered)
    assert [path for path in elsewhere.rglob("*") if path.is_file()] == []
    assert set(ROOT.iterdir()) == before
