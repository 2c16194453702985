"""Several processes that work on one root at the same time, and what killed ones leave."""

import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hand1000.storage.artifacts import open_store
from hand1000.storage.files import write_bytes, write_text
from tests.support.stores import FILES, KEY, SimulatedKill, files_of, folder_with, fresh, kill_in, save_step


def _work(root: str, folder: Path, rounds: int, errors: "multiprocessing.Queue") -> None:
    """What a run does with the store, as the same run does in another process at the same time."""
    store, error = open_store(root), None
    content = {f"{number}/file": str(number) for number in range(12)}
    try:
        for number in range(rounds):
            key = f"{number:064d}"
            checkpoint = store.checkpoint("stage3", key)
            checkpoint.restore(folder / "state")
            for step in range(2):
                checkpoint.save(folder_with(folder / "saved", content | {"step": str(step)}))
            checkpoint.restore(folder / "state")
            address = store.publish("model", folder_with(folder / f"out{number}", content | {"number": str(number)}))
            store.put_result("model", key, {"address": address})
            checkpoint.clear()
            assert fresh(store).get_result("model", key) == {"address": address}
            assert len(files_of(fresh(store).fetch(address))) == 13
            write_text(folder.parent / "same", "x" * 10_000)
    except BaseException as caught:
        error = repr(caught)
        raise
    finally:
        errors.put(error)


def test_two_processes_on_one_root(tmp_path):
    context = multiprocessing.get_context("fork")
    errors = context.Queue()
    arguments = [(str(tmp_path / "root"), tmp_path / name, 30, errors) for name in "abc"]
    processes = [context.Process(target=_work, args=values) for values in arguments]
    for process in processes:
        process.start()
    assert [errors.get(timeout=100) for _ in processes] == [None] * 3
    for process in processes:
        process.join()
    left = [path for path in (tmp_path / "root").rglob("*") if path.is_file()]
    assert not [path for path in left if "checkpoints" in path.parts or path.name.endswith(".part")]


def test_a_tree_does_not_vanish_while_it_is_repaired(tmp_path):
    """A reader of intact files never misses one, whoever repairs another file."""
    store = open_store(str(tmp_path / "root"))
    address = Path(store.publish("model", folder_with(tmp_path / "a", FILES)))
    inode = (address / "model.json").stat().st_ino
    (address / "unet/weights.bin").write_text("987654321x")
    fresh(store).publish("model", folder_with(tmp_path / "b", FILES))
    assert files_of(address) == FILES and (address / "model.json").stat().st_ino == inode


def test_states_without_a_reference_are_removed_when_dead(tmp_path, monkeypatch):
    store = open_store(str(tmp_path / "root"))
    for step in (1, 2):
        with monkeypatch.context() as patch, pytest.raises(SimulatedKill):
            kill_in(patch, store, "write")
            save_step(store, tmp_path, step)
    old, young = sorted((tmp_path / "root/checkpoints/stage3" / KEY).iterdir(), key=lambda path: path.stat().st_ctime)
    for path in old.iterdir():
        os.utime(path, (1, 1))
    save_step(store, tmp_path, 3)
    assert not old.exists() and young.exists(), "another process may be about to refer to it"


KILLED = """
import os, signal, sys
from pathlib import Path
from hand1000.storage import files
os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
files.write_bytes(Path(sys.argv[1]), b"half")
"""


def test_the_remains_of_a_killed_write_are_taken_over(tmp_path):
    target = tmp_path / "x.json"
    for _ in range(3):
        assert subprocess.run([sys.executable, "-c", KILLED, str(target)]).returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == [".x.json.part"]
    (tmp_path / ".x.json.1.part").write_text("of another one, killed at the same time")
    write_bytes(target, b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"] and target.read_bytes() == b"whole"


def test_a_writer_at_work_is_not_disturbed(tmp_path):
    with open(tmp_path / ".x.json.part", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write("its bytes")
        other.flush()
        write_bytes(tmp_path / "x.json", b"mine")
        assert (tmp_path / ".x.json.part").read_text() == "its bytes"
    assert (tmp_path / "x.json").read_bytes() == b"mine" and len(list(tmp_path.iterdir())) == 2


def test_a_killed_write_below_a_root_leaves_nothing(tmp_path):
    code = KILLED.replace("files.write_bytes(Path(sys.argv[1])", "LocalBackend(sys.argv[1]).write('results/a/b.json'")
    code = code.replace("from hand1000.storage import files", "from hand1000.storage.backend import LocalBackend")
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == -signal.SIGKILL
    store = open_store(str(tmp_path))
    with store.workspace():
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]
