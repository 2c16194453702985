"""Resolution of the addresses of models."""

from pathlib import Path

import pytest

from hand1000.core.errors import Hand1000Error
from hand1000.registry.connection import connect
from hand1000.registry.load import load_model_folder, load_pipeline
from hand1000.registry.register import register_candidate
from hand1000.registry.tracking import RunTracker
from hand1000.storage.digests import tree_manifest
from tests.support.registration import CARD, record_and_register


def test_registered_version_loads_by_number_and_alias(tracking, model_dir):
    gesture = "palm" if tracking.lock_file else "mute"
    version = record_and_register(tracking, model_dir, "run-1", gesture)
    folder = load_model_folder(version.uri, registry=tracking)
    assert (folder / "model_index.json").read_bytes() == (model_dir / "model_index.json").read_bytes()
    assert load_model_folder(version.uri, registry=tracking) == folder
    tracking.client.set_registered_model_alias(version.name, "best", "1")
    assert load_model_folder(f"models:/{version.name}@best", registry=tracking) == folder


def test_model_in_s3_loads(s3_root, model_dir):
    from hand1000.storage.digests import tree_manifest
    from hand1000.storage.s3 import S3Backend

    S3Backend(s3_root).put_tree(model_dir, "model", tree_manifest(model_dir))
    folder = load_model_folder(f"{s3_root}/model")
    assert tree_manifest(folder) == tree_manifest(model_dir)
    with pytest.raises(Hand1000Error, match="nothing: "):
        load_model_folder(f"{s3_root}/nothing")


def test_unresolvable_addresses_are_errors(tmp_path, runs, model_dir, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Hand1000Error, match="no MLflow here"):
        load_model_folder("models:/hand1000-call-candidates/1")
    runs.rename("artifacts")
    tracking = connect(Path("artifacts"))
    with pytest.raises(Hand1000Error, match="no such model"):
        load_model_folder("models:/hand1000-call-candidates/1", registry=tracking)
    record_and_register(tracking, model_dir, "k")
    assert load_model_folder("models:/hand1000-call-candidates/1").name == "weights"
    for uri in ("models:/hand1000-call-candidates/2", "models:/hand1000-call-candidates@champion"):
        with pytest.raises(Hand1000Error, match="has versions: 1; aliases: none"):
            load_model_folder(uri, registry=tracking)
    with pytest.raises(Hand1000Error, match="write models:/NAME/VERSION"):
        load_model_folder("models:/hand1000-call-candidates/latest", registry=tracking)
    with pytest.raises(Hand1000Error, match="no model there"):
        load_model_folder(str(tmp_path))
    assert load_model_folder(str(model_dir)) == model_dir
    with pytest.raises(Hand1000Error, match="not a model folder"):
        register_candidate(RunTracker("e", "k", tracking), tmp_path, gestures=("call",), metrics={}, card=CARD)


def test_damaged_weights_are_refused(runs, model_dir, tmp_path, capsys):
    from hand1000.cli.main import main

    tracking = connect(runs)
    version = record_and_register(tracking, model_dir, "k")
    weights = load_model_folder(version.uri, registry=tracking)
    assert tree_manifest(weights).digest == version.tags["hand1000.model_digest"]
    damaged = weights / "unet" / "diffusion_pytorch_model.safetensors"
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(Hand1000Error, match=f"{damaged}: its bytes are not those that were registered"):
        load_pipeline(version.uri, registry=runs)
    with pytest.raises(Hand1000Error, match=str(damaged)):
        load_model_folder(str(weights))
    options = ["--model", version.uri, "--registry", str(runs)]
    assert main(["generate", *options, "--prompt", "a hand", "--out", str(tmp_path / "grid.png")]) == 2
    assert main(["export", *options, "--to", "diffusers", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count(str(damaged)) == 2

    damaged.write_bytes(content)
    assert load_model_folder(version.uri, registry=runs) == weights
    (weights / "unet" / "pickle.bin").touch()
    with pytest.raises(Hand1000Error, match=r"pickle.bin: was not registered"):
        load_model_folder(version.uri, registry=runs)
    (weights / "unet" / "pickle.bin").unlink()
    (weights.parent / "manifest.json").write_text('{"files":[]}')
    with pytest.raises(Hand1000Error, match=r"manifest.json: not the manifest that was registered"):
        load_model_folder(version.uri, registry=runs)
    # Earlier versions of hand1000 uploaded no manifest.
    (weights.parent / "manifest.json").unlink()
    assert load_model_folder(version.uri, registry=runs) == weights
    damaged.unlink()
    with pytest.raises(Hand1000Error, match=f"{weights}: its files are not those"):
        load_model_folder(version.uri, registry=runs)


def test_damaged_download_is_downloaded_again(server, model_dir, tmp_path):
    tracking = connect(registry=server)
    version = record_and_register(tracking, model_dir, "run-1", "rock")
    folder = load_model_folder(version.uri, registry=server, cache=tmp_path)
    (folder / "model_index.json").write_text("{}")
    assert load_model_folder(version.uri, registry=server, cache=tmp_path) == folder
    assert (folder / "model_index.json").read_bytes() == (model_dir / "model_index.json").read_bytes()
