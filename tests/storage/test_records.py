"""Small records: a changed byte, and the record of something else, are never taken for what was written."""

import json
import random

import pytest

from hand1000.core.errors import Hand1000Error
from hand1000.storage.records import decode_record, encode_record, read_record, write_record
from tests.support.stores import FILES, KEY, flip_behind, flipped, folder_with, fresh, restore_step, save_step

VALUE = {"address": "a", "seconds": 1.5, "names": ["ü", "\n", None, True], "deep": {"x": {"y": [0]}}}


def test_every_changed_bit_is_noticed():
    data = encode_record("results/a.json", VALUE)
    assert decode_record("results/a.json", data) == VALUE
    for position in range(len(data)):
        for bit in range(8):
            changed = data[:position] + bytes([data[position] ^ 1 << bit]) + data[position + 1 :]
            with pytest.raises(Hand1000Error, match=r"^results/a\.json: damaged"):
                decode_record("results/a.json", changed)
    for length in range(len(data)):
        with pytest.raises(Hand1000Error, match="damaged"):
            decode_record("results/a.json", data[:length])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"value": 1}',
        b"[" * 100_000,
        b"\xff",
        b'{"value": NaN}',
        b'"\\ud800"',
        b"9" * 5000,
    ],
)
def test_a_foreign_file_is_no_record(tmp_path, data, caplog):
    (tmp_path / "x.json").write_bytes(data)
    assert read_record(tmp_path / "x.json", required=False) is None and "x.json: damaged" in caplog.text
    with pytest.raises(Hand1000Error, match="x.json: damaged, .*restore it from a copy"):
        read_record(tmp_path / "x.json", required=True)


def test_a_record_is_bound_to_its_name(tmp_path):
    write_record(tmp_path / "a.json", VALUE)
    assert read_record(tmp_path / "a.json", required=True) == VALUE
    (tmp_path / "a.json").rename(tmp_path / "b.json")
    assert read_record(tmp_path / "b.json", required=False) is None
    assert read_record(tmp_path / "a.json", required=False) is None
    with pytest.raises(Hand1000Error, match="no such record"):
        read_record(tmp_path / "a.json", required=True)


@pytest.mark.parametrize("seed", range(8))
def test_damaged_records_of_a_store_read_as_absent(store, tmp_path, seed):
    rng = random.Random(seed)
    address = store.publish("model", folder_with(tmp_path / "a", FILES))
    store.put_result("model", KEY, {"address": address, "seconds": 1.5})
    store.key_value_cache("captions", "c").add({"a": "text", "b": 2})
    save_step(store, tmp_path, 1)
    for folder in ("results", "provenance", "caches", "checkpoints"):
        for file in list(store.backend.list_files(folder)):
            if file.key.endswith(".json"):
                flip_behind(store, f"{store.root}/{file.key}", rng)
    assert restore_step(store, tmp_path / "into") is None
    assert fresh(store).get_result("model", KEY) is None
    assert fresh(store).provenance(address) == {"address": address}
    assert fresh(store).key_value_cache("captions", "c").read() == {}


def test_the_result_of_another_key_is_not_taken(store, tmp_path):
    address = store.publish("model", folder_with(tmp_path / "a", FILES))
    store.put_result("model", KEY, {"address": address})
    store.backend.write(f"results/model/{'1' * 64}.json", store.backend.read(f"results/model/{KEY}.json"))
    assert store.get_result("model", "1" * 64) is None


def test_a_damaged_manifest_makes_no_artifact(store, tmp_path):
    address = store.publish("model", folder_with(tmp_path / "a", FILES))
    data = store.backend.read(f"{address.removeprefix(store.root + '/')}.json")
    for seed in range(20):
        changed = flipped(data, random.Random(seed))
        store.backend.write(f"{address.removeprefix(store.root + '/')}.json", changed)
        assert fresh(store).is_complete(address) == (_parsed(changed) == json.loads(data))
    store.publish("model", folder_with(tmp_path / "b", FILES))
    assert fresh(store).is_complete(address)


def _parsed(data: bytes) -> object:
    try:
        return json.loads(data)
    except ValueError:
        return None
