"""Checkpoints of tasks, in a folder and on a real S3 server."""

import logging

import pytest

from hand1000.core.errors import Hand1000Error
from hand1000.storage.artifacts import open_store
from hand1000.storage.digests import tree_manifest
from hand1000.storage.files import write_bytes
from hand1000.storage.records import decode_record
from tests.support.stores import (
    FILES,
    KEY,
    SimulatedKill,
    delete_behind,
    files_of,
    folder_with,
    kill_in,
    overwrite_behind,
    restore_step,
    save_step,
)


def test_a_checkpoint_is_the_last_state_saved(store, tmp_path):
    assert restore_step(store, tmp_path / "into") is None
    save_step(store, tmp_path, 1)
    save_step(store, tmp_path, 2)
    assert restore_step(store, tmp_path / "into") == "2"
    assert len(store._backend.file_sizes(f"checkpoints/stage3/{KEY}")) == 3, "the first state was not removed"
    store.checkpoint("stage3", KEY).clear()
    assert restore_step(store, tmp_path / "into") is None
    assert store._backend.file_sizes(f"checkpoints/stage3/{KEY}") == {}


def test_restoring_replaces_the_folder_by_a_copy(store, tmp_path):
    save_step(store, tmp_path, 1)
    into = folder_with(tmp_path / "into", {"step": "old", "left": "over"})
    assert store.checkpoint("stage3", KEY).restore(into)
    assert files_of(into) == {"step": "1", "same": "s"}
    (into / "step").write_text("changed")
    assert restore_step(store, tmp_path / "other") == "1"


@pytest.mark.parametrize(("method", "survivor"), [("put_tree", "1"), ("write", "1"), ("remove", "2")])
def test_a_crash_while_saving_leaves_a_readable_state(store, tmp_path, monkeypatch, method, survivor):
    save_step(store, tmp_path, 1)
    with monkeypatch.context() as patch:
        kill_in(patch, store, method)
        with pytest.raises(SimulatedKill):
            save_step(store, tmp_path, 2)
    assert restore_step(store, tmp_path / "into") == survivor
    save_step(store, tmp_path, 3)
    assert restore_step(store, tmp_path / "into") == "3"


def test_a_crash_during_an_upload_leaves_the_last_state(s3_root, tmp_path):
    store = open_store(s3_root)
    save_step(store, tmp_path, 1)
    half = tree_manifest(folder_with(tmp_path / "state2", {"step": "2", "same": "s"}))
    store._backend.write(f"checkpoints/stage3/{KEY}/{half.digest}/step", b"2")
    assert restore_step(store, tmp_path / "into") == "1"
    save_step(store, tmp_path, 2)
    assert restore_step(store, tmp_path / "into") == "2"


def test_saving_the_same_state_twice_keeps_it(store, tmp_path):
    save_step(store, tmp_path, 1)
    save_step(store, tmp_path, 1)
    assert restore_step(store, tmp_path / "into") == "1"


@pytest.mark.parametrize("damage", ["flipped", "missing", "pointer"])
def test_a_damaged_checkpoint_is_reported_and_skipped(store, tmp_path, damage, caplog):
    save_step(store, tmp_path, 1)
    base, pointer = f"{store.root}/checkpoints/stage3/{KEY}", f"checkpoints/stage3/{KEY}/current.json"
    folder = decode_record(pointer, store._backend.read(pointer))["folder"]
    if damage == "flipped":
        overwrite_behind(store, f"{base}/{folder}/step", b"7")
    elif damage == "missing":
        delete_behind(store, f"{base}/{folder}/step")
    else:
        overwrite_behind(store, f"{base}/current.json", b"{}")
    with caplog.at_level(logging.WARNING):
        assert restore_step(store, tmp_path / "into") is None
    assert "damaged checkpoint" in caplog.text
    assert not (tmp_path / "into").exists()
    save_step(store, tmp_path, 2)
    assert restore_step(store, tmp_path / "into") == "2"


def test_a_full_disk_keeps_the_last_checkpoint(tiny_disk, tmp_path):
    store = open_store(str(tiny_disk / "root"))
    save_step(store, tmp_path, 1)
    large = folder_with(tmp_path / "large", {"step": "2", "weights": "x" * 2_000_000})
    with pytest.raises(Hand1000Error, match="no space left"):
        store.checkpoint("stage3", KEY).save(large)
    with pytest.raises(Hand1000Error, match="no space left"):
        store.publish("model", large)
    with pytest.raises(Hand1000Error, match="no space left"):
        write_bytes(tiny_disk / "file", b"x" * 2_000_000)
    assert not (tiny_disk / "file").exists()
    assert restore_step(store, tmp_path / "into") == "1"
    assert store.publish("model", folder_with(tmp_path / "small", FILES)), "the failed copy still fills the disk"
