"""Artifacts and results, in a folder and on a real S3 server."""

import json
import multiprocessing
import os
import shutil
from pathlib import Path

import pytest

from hand1000.core.errors import Hand1000Error
from hand1000.storage.artifacts import open_store
from hand1000.storage.digests import digest_bytes, digest_json, tree_manifest
from tests.support.stores import (
    FILES,
    KEY,
    SimulatedKill,
    delete_behind,
    files_of,
    folder_with,
    fresh,
    kill_in,
    overwrite_behind,
)


def test_a_fetched_artifact_equals_the_published_one(store, tmp_path):
    address = store.publish("model", folder_with(tmp_path / "a", FILES))
    assert address.startswith(f"{store.root}/artifacts/model/")
    assert files_of(fresh(store).fetch(address)) == FILES
    assert store.is_complete(address)
    assert address.endswith(f"/{tree_manifest(store.fetch(address)).digest}")


def test_equal_content_has_one_address_on_every_root(root, tmp_path):
    other = open_store(str(tmp_path / "elsewhere"))
    one = open_store(root).publish("model", folder_with(tmp_path / "a", FILES))
    two = other.publish("model", folder_with(tmp_path / "b", dict(reversed(FILES.items()))))
    changed = other.publish("model", folder_with(tmp_path / "c", FILES | {"unet/empty": "x"}))
    assert Path(two).name == Path(one).name != Path(changed).name


def test_publishing_again_writes_nothing(store, tmp_path, monkeypatch):
    address = store.publish("model", folder_with(tmp_path / "a", FILES))
    kill_in(monkeypatch, store, "put_tree")
    assert store.publish("model", folder_with(tmp_path / "b", FILES)) == address


@pytest.mark.parametrize("method", ["put_tree", "write"])
def test_an_artifact_does_not_exist_before_its_manifest(store, tmp_path, monkeypatch, method):
    whole = folder_with(tmp_path / "whole", FILES)
    address = f"{store.root}/artifacts/model/{tree_manifest(whole).digest}"
    with monkeypatch.context() as patch:
        kill_in(patch, store, method)
        with pytest.raises(SimulatedKill):
            store.publish("model", whole)
    assert not store.is_complete(address)
    with pytest.raises(Hand1000Error, match="never finished"):
        store.fetch(address)
    assert store.publish("model", folder_with(tmp_path / "again", FILES)) == address
    assert files_of(store.fetch(address)) == FILES


@pytest.mark.parametrize("fatal_call", [1, 2])
def test_a_result_does_not_exist_before_its_provenance(store, tmp_path, monkeypatch, fatal_call):
    record = {"address": store.publish("model", folder_with(tmp_path / "a", FILES)), "seconds": 1.5}
    with monkeypatch.context() as patch:
        kill_in(patch, store, "write", fatal_call)
        with pytest.raises(SimulatedKill):
            store.put_result("model", KEY, record)
    assert fresh(store).get_result("model", KEY) is None
    store.put_result("model", KEY, record)
    assert fresh(store).provenance(record["address"]) == record


def test_publishing_again_repairs_an_incomplete_artifact(store, tmp_path):
    address = store.publish("model", folder_with(tmp_path / "a", FILES))
    delete_behind(store, f"{address}/unet/weights.bin")
    assert not store.is_complete(address)
    with pytest.raises(Hand1000Error, match="unet/weights.bin: missing"):
        store.fetch(address)
    store.publish("model", folder_with(tmp_path / "b", FILES))
    assert files_of(fresh(store).fetch(address)) == FILES


def test_a_file_cut_short_is_named(store, tmp_path):
    address = store.publish("model", folder_with(tmp_path / "a", FILES))
    overwrite_behind(store, f"{address}/unet/weights.bin", b"01234")
    with pytest.raises(Hand1000Error, match="unet/weights.bin: 5 of 10 bytes"):
        store.fetch(address)


def test_a_flipped_byte_in_a_bucket_is_refused_and_named(s3_root, tmp_path):
    store = open_store(s3_root)
    address = store.publish("model", folder_with(tmp_path / "a", FILES))
    overwrite_behind(store, f"{address}/unet/weights.bin", b"0123456780")
    with pytest.raises(Hand1000Error, match="unet/weights.bin: its bytes are not those"):
        store.fetch(address)
    delete_behind(store, f"{address}/unet/weights.bin")  # The remedy of the message.
    store.publish("model", folder_with(tmp_path / "b", FILES))
    assert files_of(store.fetch(address)) == FILES


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/../../outside", "a\\b"])
def test_a_manifest_cannot_name_a_file_outside(store, name):
    digest = digest_bytes(b"x")
    listing = [{"name": name, "size": 1, "sha256": digest}]
    address = f"{store.root}/artifacts/model/{digest_json(listing)}"
    store._backend.write(f"artifacts/model/{digest_json(listing)}.json", json.dumps({"files": listing}).encode())
    with pytest.raises(Hand1000Error, match="not a plain relative path"):
        store.fetch(address)


def test_a_manifest_under_another_name_is_refused(store, tmp_path):
    manifest = tree_manifest(folder_with(tmp_path / "a", FILES))
    store._backend.write(f"artifacts/model/{KEY}.json", manifest.model_dump_json().encode())
    with pytest.raises(Hand1000Error, match="not the manifest of this artifact"):
        store.fetch(f"{store.root}/artifacts/model/{KEY}")


def test_a_bucket_is_downloaded_once_a_process(s3_root, tmp_path, monkeypatch):
    store = open_store(s3_root)
    address = store.publish("model", folder_with(tmp_path / "a", FILES))
    first = store.fetch(address)
    kill_in(monkeypatch, store, "get_tree")
    assert open_store(f"{s3_root}/").fetch(address) == first


@pytest.mark.parametrize("kind", ["", "Model", "../model", "a/b", "a" * 41])
def test_a_kind_is_a_short_identifier(store, tmp_path, kind):
    with pytest.raises(Hand1000Error, match="not a valid kind"):
        store.publish(kind, folder_with(tmp_path / "a", FILES))


def test_an_address_of_another_root_is_refused(store):
    for address in (f"/elsewhere/artifacts/model/{KEY}", f"{store.root}/artifacts/model/../{KEY}"):
        with pytest.raises(Hand1000Error, match="not an artifact of"):
            store.fetch(address)


def _publish_copies(root: str, folder: Path, name: str, addresses: "multiprocessing.Queue") -> None:
    store = open_store(root)
    for attempt in range(5):
        content = {"round": str(attempt)} | {f"file{i}": str(i) for i in range(20)}
        addresses.put(store.publish("model", folder_with(folder / f"{name}{attempt}", content)))


def test_two_processes_may_publish_the_same_content(root, tmp_path):
    context = multiprocessing.get_context("spawn")
    addresses = context.Queue()
    processes = [
        context.Process(target=_publish_copies, args=(root, tmp_path / "given", name, addresses)) for name in "ab"
    ]
    for process in processes:
        process.start()
    found = [addresses.get(timeout=60) for _ in range(10)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(set(found)) == 5
    assert all(len(files_of(open_store(root).fetch(address))) == 21 for address in found)


def test_the_second_of_two_writers_keeps_the_first_ones_folder(tmp_path, monkeypatch):
    store = open_store(str(tmp_path / "root"))
    rename = os.rename

    def overtaken(source, target):
        if "artifacts" in str(target):
            monkeypatch.setattr(os, "rename", rename)
            folder_with(Path(target), FILES)
        rename(source, target)

    monkeypatch.setattr(os, "rename", overtaken)
    address = store.publish("model", folder_with(tmp_path / "a", FILES))
    assert files_of(store.fetch(address)) == FILES


def test_a_result_is_read_with_its_address(store, tmp_path):
    address = store.publish("model", folder_with(tmp_path / "a", FILES))
    assert store.get_result("stage1", KEY) is None
    store.put_result("stage1", KEY, {"address": address, "seconds": 1.5})
    assert fresh(store).get_result("stage1", KEY) == {"address": address, "seconds": 1.5}


def test_a_result_without_its_artifact_is_ignored(store, tmp_path):
    address = store.publish("model", folder_with(tmp_path / "a", FILES))
    store.put_result("stage1", KEY, {"address": address})
    delete_behind(store, f"{address}/model.json")
    assert store.get_result("stage1", KEY) is None


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b'{"address": "artifacts/../x"}', b'{"address": 3}'])
def test_a_damaged_result_is_ignored(store, data, caplog):
    store._backend.write(f"results/stage1/{KEY}.json", data)
    assert store.get_result("stage1", KEY) is None
    assert KEY in caplog.text


def test_a_store_may_be_moved_to_another_folder(tmp_path):
    store = open_store(str(tmp_path / "before"))
    store.put_result("stage1", KEY, {"address": store.publish("model", folder_with(tmp_path / "a", FILES))})
    shutil.move(tmp_path / "before", tmp_path / "after")
    moved = open_store(str(tmp_path / "after"))
    assert files_of(moved.fetch(moved.get_result("stage1", KEY)["address"])) == FILES


@pytest.mark.parametrize("root", ["gs://bucket/x", "s3://", "s3:///x", "http://host/x"])
def test_a_malformed_root_is_refused(root):
    with pytest.raises(Hand1000Error, match="not an S3 URL"):
        open_store(root)


def test_a_workspace_is_below_the_root_and_removed(store):
    with pytest.raises(SimulatedKill), store.workspace() as path:
        (path / "file").write_text("x")
        if not store.root.startswith("s3://"):
            assert path.is_relative_to(store.root)
        raise SimulatedKill
    assert not path.exists()
