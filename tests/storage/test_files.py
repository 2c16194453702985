"""Atomic writes, and errors of JSON files."""

import errno
import os
import shutil

import pytest

from hand1000.core.errors import Hand1000Error
from hand1000.storage.files import read_json, read_jsonl, replace_directory, write_json, write_jsonl
from tests.support.stores import (
    SimulatedKill,
    files_of,
    folder_with,
)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "file.jsonl"
    write_jsonl(path, [{"a": 1}])

    def rows():
        yield {"a": 2}
        raise SimulatedKill

    with pytest.raises(SimulatedKill):
        write_jsonl(path, rows())
    assert [row for _, row in read_jsonl(path)] == [{"a": 1}]
    assert list(tmp_path.iterdir()) == [path]


def test_a_refused_write_names_the_file(tmp_path, monkeypatch):
    # Root may write anywhere, so the refusal is made here.
    def refuse(*_):
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(Hand1000Error, match="x.json: not writable"):
        write_json(tmp_path / "x.json", {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("data", "message"), [(b"{\n,}", "line 2: not JSON"), (b"\xff", "not JSON"), (None, "no such file")]
)
def test_a_faulty_json_file_is_named(tmp_path, data, message):
    path = tmp_path / "x.json"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(Hand1000Error, match=f"{path}: .*{message}"):
        read_json(path)


def test_a_faulty_line_is_named(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"a": "b\u2028c"}\n\n3\n')
    with pytest.raises(Hand1000Error, match="x.jsonl: line 3: not a JSON object"):
        list(read_jsonl(tmp_path / "x.jsonl"))


def test_a_folder_replaces_another(tmp_path):
    for name in ("new", "newer"):
        replace_directory(folder_with(tmp_path / name, {name: name}), tmp_path / "target")
        assert files_of(tmp_path) == {f"target/{name}": name}


def test_what_a_killed_replacement_left_is_removed(tmp_path, monkeypatch):
    folder_with(tmp_path / "target", {"old": "old"})
    for other in (".target.notes.old", f".targets.{'0' * 32}.old"):
        folder_with(tmp_path / other, {"kept": "kept"})
    for fatal_call in (2, 1):  # Before the new folder has its name, and before the backup is removed.
        with monkeypatch.context() as patch, pytest.raises(SimulatedKill):
            kill_at(patch, *((os, "rename") if fatal_call == 2 else (shutil, "rmtree")), fatal_call)
            replace_directory(folder_with(tmp_path / f"new{fatal_call}", {"new": str(fatal_call)}), tmp_path / "target")
        assert len(list(tmp_path.glob(f".target.{'[0-9a-f]' * 32}.old"))) == 1
        replace_directory(folder_with(tmp_path / "newer", {"new": "er"}), tmp_path / "target")
        assert not list(tmp_path.glob(f".target.{'[0-9a-f]' * 32}.old"))
    assert files_of(tmp_path / "target") == {"new": "er"}
    assert len(list(tmp_path.glob("*/kept"))) == 2


def kill_at(patch: pytest.MonkeyPatch, module, name: str, fatal_call: int) -> None:
    """Simulate the end of the process at the given call of a function."""
    original, calls = getattr(module, name), []

    def dying(*args, **options):
        calls.append(args)
        if len(calls) == fatal_call:
            raise SimulatedKill
        return original(*args, **options)

    patch.setattr(module, name, dying)
