"""Checkpoints: written beside the training in one pass, read into the tensors that exist, reported when they fail."""

import os
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hand1000.core.errors import Hand1000Error
from hand1000.storage.artifacts import open_store
from hand1000.storage.digests import digest_file
from hand1000.storage.tensor_files import TensorFile, read_tensors, read_tensors_into, write_tensors
from hand1000.training import checkpoint as checkpoint_module
from hand1000.training.checkpoint import CheckpointWriter, TrainingState, load_checkpoint, save_checkpoint
from tests.support.tiny_models import CrashingCheckpointStore

KEY = "0" * 64
TENSORS = {
    "weight": torch.arange(24.0).reshape(2, 3, 2, 2).contiguous(memory_format=torch.channels_last),
    "half": torch.arange(3.0).to(torch.bfloat16),
    "double": torch.arange(2, dtype=torch.float64),
    "number": torch.tensor(7),
    "flag": torch.tensor([True, False]),
    "empty": torch.empty(0),
    "ünï": torch.arange(6.0).reshape(2, 3).T,
}


class BlockedStore(CrashingCheckpointStore):
    """A store whose `save` waits until it is let go, and then may fail."""

    def __init__(self, folder: Path, error: Exception | None = None) -> None:
        super().__init__(folder)
        self.released, self.error = threading.Event(), error

    def save(self, directory, digests=None) -> None:
        assert self.released.wait(30)
        if self.error is not None:
            raise self.error
        super().save(directory)


def test_tensors_are_written_as_safetensors_does(tmp_path):
    digest = write_tensors(tmp_path / "a.safetensors", TENSORS)
    assert digest == digest_file(tmp_path / "a.safetensors")
    save_file({name: value.contiguous() for name, value in TENSORS.items()}, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    again = read_tensors(tmp_path / "b.safetensors")
    assert all(torch.equal(again[name], value) for name, value in TENSORS.items()) and again.keys() == TENSORS.keys()


def test_tensors_are_hashed_alike_without_a_thread(tmp_path, monkeypatch):
    def refuse(self) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert write_tensors(tmp_path / "a.safetensors", TENSORS) == digest_file(tmp_path / "a.safetensors")


def test_tensors_are_read_into_those_of_any_layout(tmp_path):
    write_tensors(tmp_path / "a.safetensors", TENSORS)
    targets = {name: torch.empty_like(value) for name, value in TENSORS.items()} | {"half": torch.zeros(3)}
    read_tensors_into(tmp_path / "a.safetensors", targets)
    assert all(torch.equal(targets[name].to(value.dtype), value) for name, value in TENSORS.items())
    assert targets["weight"].is_contiguous(memory_format=torch.channels_last)
    for wrong in ({"weight": torch.zeros(1)}, {"other": torch.zeros(1)}):
        with pytest.raises(Hand1000Error, match="has the shape|not on both sides"):
            read_tensors_into(tmp_path / "a.safetensors", targets | wrong)


@pytest.mark.parametrize("data", [b"", b"\xff" * 8, b"\x02" + b"\0" * 7 + b"[]", b"\x04" + b"\0" * 7 + b"{,}}"])
def test_a_malformed_tensor_file_is_named(tmp_path, data):
    (tmp_path / "a.safetensors").write_bytes(data)
    with (
        pytest.raises(Hand1000Error, match="a.safetensors: not a safetensors file"),
        TensorFile(tmp_path / "a.safetensors"),
    ):
        pass


def test_a_training_does_not_wait_for_a_checkpoint(tmp_path):
    store, weights = BlockedStore(tmp_path / "state"), {"a": torch.zeros(2)}
    with CheckpointWriter(store) as writer:
        writer.save(TrainingState(1, [{"step": 1}], {"weights": weights}))
        weights["a"] += 1  # The next step, while the checkpoint is being written.
        assert not store.folder.exists()
        store.released.set()
        writer.wait()
        assert torch.equal(load_file(store.folder / "tensors.weights.safetensors")["a"], torch.zeros(2))
        for values in (torch.ones(2), torch.ones(3), torch.tensor([1, 2])):
            writer.save(TrainingState(1, [{"step": 1}], {"weights": {"a": values}}))
            writer.wait()
            assert torch.equal(load_file(store.folder / "tensors.weights.safetensors")["a"], values)


def test_a_failed_checkpoint_is_reported_at_the_next_step(tmp_path):
    store = BlockedStore(tmp_path / "state", Hand1000Error("no space left"))
    with CheckpointWriter(store) as writer:
        writer.save(TrainingState(1))
        writer.raise_error()
        store.released.set()
        writer._thread.join()
        with pytest.raises(Hand1000Error, match="no space left"):
            writer.raise_error()
    store.released.clear()
    with pytest.raises(Hand1000Error, match="no space left"), CheckpointWriter(store) as writer:
        writer.save(TrainingState(2))
        store.released.set()


def test_an_error_of_the_training_comes_before_that_of_a_checkpoint(tmp_path, caplog):
    store = BlockedStore(tmp_path / "state", Hand1000Error("no space left"))
    with pytest.raises(ZeroDivisionError), CheckpointWriter(store) as writer:
        writer.save(TrainingState(1))
        store.released.set()
        raise ZeroDivisionError
    assert "could not be written: no space left" in caplog.text


@pytest.mark.parametrize("wait", [True, False])
def test_without_memory_a_checkpoint_is_written_at_once(tmp_path, monkeypatch, wait):
    monkeypatch.setattr(checkpoint_module, "available_memory", lambda: 10 if not wait else 1 << 40)
    store = CrashingCheckpointStore(tmp_path / "state")
    writer = CheckpointWriter(store)
    writer.save(TrainingState(1, tensors={"weights": {"a": torch.zeros(4)}}), wait=wait)
    assert (store.folder / "tensors.weights.safetensors").exists() and writer._thread is None


@pytest.mark.parametrize("crash", [1, 2])
def test_a_full_disk_leaves_the_last_checkpoint(tiny_disk, tmp_path, crash):
    store = open_store(str(tiny_disk / "root")).checkpoint("stage3", KEY)
    with pytest.raises(Hand1000Error, match="no space left"), CheckpointWriter(store) as writer:
        writer.save(TrainingState(1, tensors={"weights": {"a": torch.ones(10)}}))
        writer.save(TrainingState(2, tensors={"weights": {"a": torch.ones(500_000)}}), wait=crash == 1)
    state = load_checkpoint(store)
    assert state.step == 1 and torch.equal(state.tensors["weights"]["a"], torch.ones(10))


def test_a_state_is_read_where_it_belongs(tmp_path):
    store = open_store(str(tmp_path / "root")).checkpoint("stage3", KEY)
    weights = {"a": torch.randn(3), "b": torch.randn(2, 2)}
    save_checkpoint(store, TrainingState(3, tensors={"weights": weights, "best": {"c": torch.ones(1)}}))
    targets = {name: torch.zeros_like(value) for name, value in weights.items()}
    addresses = {name: value.data_ptr() for name, value in targets.items()}
    state = load_checkpoint(store, targets={"weights": targets})
    assert state.step == 3 and list(state.tensors) == ["best"]
    assert all(torch.equal(targets[name], value) for name, value in weights.items())
    assert addresses == {name: value.data_ptr() for name, value in targets.items()}


def test_a_state_to_read_is_linked_and_verified(tmp_path, caplog):
    store = open_store(str(tmp_path / "root")).checkpoint("stage3", KEY)
    save_checkpoint(store, TrainingState(1, tensors={"weights": {"a": torch.zeros(9)}}))
    assert store.restore(tmp_path / "into", read_only=True)
    (stored,) = (tmp_path / "root").rglob("checkpoints/**/tensors.weights.safetensors")
    linked = tmp_path / "into" / stored.name
    assert os.path.samefile(linked, stored)
    save_checkpoint(store, TrainingState(2))
    assert not stored.exists() and linked.stat().st_nlink == 1, "another process may replace the state meanwhile"
    save_checkpoint(store, TrainingState(3, tensors={"weights": {"a": torch.zeros(9)}}))
    (stored,) = (tmp_path / "root").rglob("checkpoints/**/tensors.weights.safetensors")
    stored.write_bytes(stored.read_bytes()[:-1] + b"x")
    assert not store.restore(tmp_path / "into", read_only=True) and "damaged checkpoint" in caplog.text
    assert stored.read_bytes().endswith(b"x")
