"""A changed byte in a stored file is found, never used, and healed by computing the artifact again."""

import os
import random
from pathlib import Path

import pytest

from hand1000.core.errors import Hand1000Error
from hand1000.storage import digests
from hand1000.storage.artifacts import ArtifactStore
from hand1000.storage.backend import LocalBackend
from hand1000.storage.cache import NODE_CACHE_VARIABLE
from hand1000.storage.s3 import S3Backend
from hand1000.storage.sources import local_copy
from tests.support.stores import FILES, KEY, files_of, flip_behind, folder_with, fresh


def publish(store: ArtifactStore, folder: Path) -> str:
    address = store.publish("model", folder_with(folder, FILES))
    store.put_result("model", KEY, {"address": address})
    return address


@pytest.mark.parametrize("seed", range(3))
def test_a_flipped_bit_is_found_and_healed(store, tmp_path, seed):
    address, rng = publish(store, tmp_path / "a"), random.Random(seed)
    name = rng.choice([name for name, text in FILES.items() if text])
    flip_behind(store, f"{address}/{name}", rng)
    with pytest.raises(Hand1000Error, match=f"{name}: its bytes are not those that were written; run again"):
        fresh(store).fetch(address)
    assert fresh(store).get_result("model", KEY) is None, "the task would not run again"
    assert publish(fresh(store), tmp_path / "b") == address
    assert fresh(store).get_result("model", KEY) == {"address": address}
    assert files_of(fresh(store).fetch(address)) == FILES


def test_a_republish_heals_by_itself(store, tmp_path):
    address = publish(store, tmp_path / "a")
    flip_behind(store, f"{address}/model.json", random.Random(1))
    publish(fresh(store), tmp_path / "b")
    assert files_of(fresh(store).fetch(address)) == FILES


def test_a_flip_after_the_first_check_is_found(tmp_path):
    store = ArtifactStore(LocalBackend(str(tmp_path / "root")))
    address = publish(store, tmp_path / "a")
    assert files_of(store.fetch(address)) == FILES
    flip_behind(store, f"{address}/model.json", random.Random(2))
    with pytest.raises(Hand1000Error, match="model.json: its bytes"):
        store.fetch(address)


def test_a_repair_removes_what_does_not_belong(tmp_path):
    store = ArtifactStore(LocalBackend(str(tmp_path / "root")))
    address = Path(publish(store, tmp_path / "a"))
    for name in FILES:
        (address / name).unlink()
    (address / "unet").rmdir()
    folder_with(address, {"unet": "a file where a folder belongs", "stray": "x"})
    publish(store, tmp_path / "b")
    assert files_of(store.fetch(str(address))) == FILES


def test_a_file_is_read_once_unless_asked_again(tmp_path, monkeypatch):
    store = ArtifactStore(LocalBackend(str(tmp_path / "root")))
    folder = folder_with(tmp_path / "a", FILES)
    for name in FILES:
        os.utime(folder / name, (1, 1))
    monkeypatch.setattr(digests, "_TICK_NS", -1)
    address, read = store.publish("model", folder), []
    digest_file = digests.digest_file
    monkeypatch.setattr(digests, "digest_file", lambda path: read.append(path.name) or digest_file(path))
    for _ in range(3):
        store.fetch(address)
    assert read == []
    store.fetch(address, recheck=True)
    assert sorted(read) == sorted(Path(name).name for name in FILES)


def test_a_nodes_copies_are_verified(s3_root, tmp_path, monkeypatch):
    monkeypatch.setenv(NODE_CACHE_VARIABLE, str(tmp_path / "node"))
    address = publish(ArtifactStore(S3Backend(s3_root)), tmp_path / "a")
    for attempt, fetch in enumerate((ArtifactStore(S3Backend(s3_root)).fetch, local_copy)):
        local_copy.cache_clear()
        folder = fetch(address)
        assert files_of(folder) == FILES
        flip_behind(None, str(folder / "unet/weights.bin"), random.Random(attempt))
        local_copy.cache_clear()
        again = local_copy(address) if attempt else ArtifactStore(S3Backend(s3_root)).fetch(address)
        assert again == folder and files_of(again) == FILES
