"""Rows of tensors that stay in their files until they are used."""

import gc
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hand1000.core.errors import Hand1000Error
from hand1000.storage.tensor_files import write_tensors
from hand1000.storage.tensor_rows import TensorRows, create_tensor_rows, select_rows

VALUES = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_file({"other": torch.arange(7), "values": VALUES}, tmp_path / "values.safetensors")
    return tmp_path / "values.safetensors"


def test_rows_are_those_of_the_tensor(path: Path) -> None:
    rows = TensorRows.open(path, "values")
    assert len(rows) == 5 and rows.shape == VALUES.shape and rows.dtype == VALUES.dtype
    for index in (slice(None), slice(1, 4), slice(0, 5, 2), slice(9, 12), [3, 0, 3], [-1], torch.tensor([4, 1])):
        assert torch.equal(rows[index], VALUES[index])
        assert torch.equal(select_rows(rows, index)[:], select_rows(VALUES, index))
    with pytest.raises(IndexError):
        rows[[5]]
    assert TensorRows.open(path, "other")[2:].tolist() == [2, 3, 4, 5, 6]


def test_rows_of_several_files_are_joined_in_any_order(path: Path, tmp_path: Path) -> None:
    save_file({"values": VALUES + 100}, tmp_path / "more.safetensors")
    joined = TensorRows.join(
        [TensorRows.open(path, "values"), TensorRows.open(tmp_path / "more.safetensors", "values")]
    )
    expected = torch.cat([VALUES, VALUES + 100])
    assert torch.equal(joined[:], expected)
    assert torch.equal(joined.select([9, 0, 5]).select(slice(1, 3))[:], expected[[0, 5]])
    save_file({"values": torch.zeros(2, 4)}, tmp_path / "wrong.safetensors")
    with pytest.raises(Hand1000Error, match=r"wrong\.safetensors: its rows are not like those of other shards"):
        TensorRows.join([joined, TensorRows.open(tmp_path / "wrong.safetensors", "values")])


def test_a_new_file_has_the_bytes_of_safetensors(tmp_path: Path) -> None:
    tensors = {"a": VALUES, "b": torch.arange(5), "scalar": torch.tensor(3), "none": torch.zeros(0, 2)}
    save_file(tensors, tmp_path / "expected.safetensors")
    kinds = {name: (tensors[name].dtype, tuple(tensors[name].shape)) for name in ("a", "b", "none")}
    with create_tensor_rows(tmp_path / "new.safetensors", kinds, {"scalar": tensors["scalar"]}) as rows:
        rows["a"][3:] = VALUES[3:].double()
        rows["a"][:3] = VALUES[:3].transpose(1, 2).contiguous().transpose(1, 2)
        rows["b"][[4, 0, 1, 2, 3]] = torch.tensor([4, 0, 1, 2, 3])
        assert torch.equal(rows["a"][1:2], VALUES[1:2])
    assert (tmp_path / "new.safetensors").read_bytes() == (tmp_path / "expected.safetensors").read_bytes()


def test_rows_are_written_into_another_file_in_pieces(path: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("hand1000.storage.tensor_files._PIECE_BYTES", 50)
    rows = TensorRows.open(path, "values").select([4, 2, 0])
    write_tensors(tmp_path / "rows.safetensors", {"a": rows, "b": torch.ones(2)})  # type: ignore[dict-item]
    save_file({"a": VALUES[[4, 2, 0]], "b": torch.ones(2)}, tmp_path / "expected.safetensors")
    assert (tmp_path / "rows.safetensors").read_bytes() == (tmp_path / "expected.safetensors").read_bytes()


def test_files_are_closed_and_outlive_their_names(path: Path) -> None:
    gc.collect()  # Of files that earlier tests have left open.
    before = len(os.listdir("/proc/self/fd"))
    rows = TensorRows.open(path, "values")
    part = rows.select([2])
    path.unlink()
    del rows
    assert torch.equal(part[:], VALUES[[2]]) and len(os.listdir("/proc/self/fd")) == before + 1
    del part
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_damaged_file_is_one_line(path: Path) -> None:
    rows = TensorRows.open(path, "values")
    os.truncate(path, path.stat().st_size - 4)
    with pytest.raises(Hand1000Error, match=r"^\S*values\.safetensors: was cut short while it was read"):
        rows[:]
    with pytest.raises(Hand1000Error, match=r"^\S*values\.safetensors: ends within values; remove it$"):
        TensorRows.open(path, "values")
    path.write_bytes(b"no tensors")
    with pytest.raises(Hand1000Error, match=r"^\S*values\.safetensors: not a safetensors file"):
        TensorRows.open(path, "values")
