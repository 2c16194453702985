"""Atomic writes, and errors of JSON files."""

import errno
import os

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
