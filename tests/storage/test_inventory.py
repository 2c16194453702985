"""The pieces of an artifact root, on a folder and on S3: complete, used, half written and half removed ones."""

import os
import time

import pytest

from hand1000.storage.artifacts import ArtifactStore, open_store
from hand1000.storage.inventory import ARTIFACT, CACHE, CHECKPOINT, LEFTOVER, Piece, list_pieces, remove_piece
from tests.support.stores import FILES, KEY, SimulatedKill, folder_with, fresh, kill_in, save_step

BYTES = sum(map(len, FILES.values()))


def publish(store: ArtifactStore, tmp_path, kind: str = "model", key: str = KEY) -> str:
    address = store.publish(kind, folder_with(tmp_path / f"{kind}-{key}", FILES))
    store.put_result(kind, key, {"address": address, "seconds": 1.0})
    return address


def only(store: ArtifactStore, role: str) -> Piece:
    (piece,) = [piece for piece in list_pieces(store) if piece.role == role]
    return piece


def test_artifact_has_its_records(store, tmp_path):
    address = publish(store, tmp_path)
    publish(store, tmp_path, key="1" * 64)
    piece = only(store, ARTIFACT)
    assert f"{store.root}/{piece.key}" == address
    assert piece.kind == "model" and piece.name == address.removeprefix(f"{store.root}/artifacts/")
    assert set(piece.records) == {f"results/model/{KEY}.json", f"results/model/{'1' * 64}.json", f"{piece.key}.json"}
    assert piece.traces == (f"provenance/{piece.name}.json",)
    assert BYTES < piece.size < BYTES + 2000 and abs(piece.used - time.time()) < 30


def test_checkpoints_and_caches_are_pieces(store, tmp_path):
    save_step(store, tmp_path, 3)
    cache = store.key_value_cache("captions", "c")
    cache.add({"a": 1})
    assert only(store, CHECKPOINT).name == f"stage3/{KEY}"
    before = only(store, CACHE)
    assert store.key_value_cache("captions", "c").read() == {"a": 1}
    assert only(store, CACHE).used >= before.used and only(store, CACHE).key == "caches/captions/c"
    assert remove_piece(store, only(store, CACHE)) and remove_piece(store, only(store, CHECKPOINT))
    assert list_pieces(store) == [] and store.key_value_cache("captions", "c").read() == {}


def test_removed_artifact_is_computed_again(store, tmp_path):
    address = publish(store, tmp_path)
    assert remove_piece(store, only(store, ARTIFACT))
    assert list_pieces(store) == []
    assert fresh(store).get_result("model", KEY) is None and not store.is_complete(address)
    assert publish(store, tmp_path) == address and store.is_complete(address)


def test_each_interrupted_removal_is_finished_later(store, tmp_path, monkeypatch):
    address = publish(store, tmp_path)
    for fatal_call in range(1, 5):
        with monkeypatch.context() as patch:
            kill_in(patch, store, "remove", fatal_call)
            with pytest.raises(SimulatedKill):
                remove_piece(store, only(store, ARTIFACT))
        # Never a result or a manifest of files that are half there.
        assert (fresh(store).get_result("model", KEY) is None) == (fatal_call > 1)
        assert store.is_complete(address) == (fatal_call < 3)
        for piece in list_pieces(store):
            assert remove_piece(store, piece)
        assert list_pieces(store) == []
        publish(store, tmp_path)


def test_what_is_used_meanwhile_stays(store, tmp_path):
    address = publish(store, tmp_path)
    piece = only(store, ARTIFACT)
    time.sleep(1.1)  # S3 has times of whole seconds.
    assert fresh(store).get_result("model", KEY)
    assert not remove_piece(store, piece)
    assert store.is_complete(address) and only(store, ARTIFACT).used > piece.used


def test_remains_of_a_kill_are_leftovers(tmp_path):
    store = open_store(str(tmp_path / "root"))
    address = publish(store, tmp_path)
    os.rename(address, tmp_path / "gone")
    os.remove(f"{address}.json")
    partial = folder_with(tmp_path / "root", {"results/model/.x.part": "{", "results/model/bad.json": "{"})
    leftovers = {piece.key for piece in list_pieces(store) if piece.role == LEFTOVER}
    provenance = f"provenance{address.removeprefix(f'{store.root}/artifacts')}.json"
    assert leftovers == {
        f"results/model/{KEY}.json",
        "results/model/bad.json",
        "results/model/.x.part",
        provenance,
    }
    for piece in list_pieces(store):
        assert remove_piece(store, piece)
    assert not [path for path in partial.rglob("*") if path.is_file()]
