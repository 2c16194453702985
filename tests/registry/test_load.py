"""Resolution of the addresses of models."""

from pathlib import Path

import pytest

from hand1000.core.errors import Hand1000Error
from hand1000.registry.connection import connect
from hand1000.registry.load import load_model_folder
from hand1000.registry.register import register_candidate
from hand1000.registry.tracking import RunTracker
from tests.support.registration import CARD, record_and_register


def test_registered_version_loads_by_number_and_alias(tracking, model_dir):
    gesture = "palm" if tracking.lock_file else "mute"
    version = record_and_register(tracking, model_dir, "run-1", gesture)
    folder = load_model_folder(version.uri, tracking=tracking)
    assert (folder / "model_index.json").read_bytes() == (model_dir / "model_index.json").read_bytes()
    assert load_model_folder(version.uri, tracking=tracking) == folder
    tracking.client.set_registered_model_alias(version.name, "best", "1")
    assert load_model_folder(f"models:/{version.name}@best", tracking=tracking) == folder


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
        load_model_folder("models:/hand1000-call-candidates/1", tracking=tracking)
    record_and_register(tracking, model_dir, "k")
    assert load_model_folder("models:/hand1000-call-candidates/1").name == "weights"
    for uri in ("models:/hand1000-call-candidates/2", "models:/hand1000-call-candidates@champion"):
        with pytest.raises(Hand1000Error, match="has versions: 1; aliases: none"):
            load_model_folder(uri, tracking=tracking)
    with pytest.raises(Hand1000Error, match="write models:/NAME/VERSION"):
        load_model_folder("models:/hand1000-call-candidates/latest", tracking=tracking)
    with pytest.raises(Hand1000Error, match="no model there"):
        load_model_folder(str(tmp_path))
    assert load_model_folder(str(model_dir)) == model_dir
    with pytest.raises(Hand1000Error, match="not a model folder"):
        register_candidate(RunTracker("e", "k", tracking), tmp_path, gestures=("call",), metrics={}, card=CARD)
