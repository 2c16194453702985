"""Copies of a bucket's artifacts that the processes of a node share."""

import subprocess
import sys
from pathlib import Path

import pytest

from hand1000.core.errors import Hand1000Error
from hand1000.storage.artifacts import ArtifactStore
from hand1000.storage.cache import NODE_CACHE_VARIABLE
from hand1000.storage.s3 import S3Backend
from hand1000.storage.sources import local_copy


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the downloaded files of artifacts."""
    names: list[str] = []
    get = S3Backend.get_tree

    def recording(self, key, manifest, target):
        names.extend(entry.name for entry in manifest.files)
        return get(self, key, manifest, target)

    monkeypatch.setattr(S3Backend, "get_tree", recording)
    return names


def published(root: str, folder: Path) -> str:
    folder.mkdir()
    for name in "abc":
        (folder / name).write_text(name * 1000)
    return ArtifactStore(S3Backend(root)).publish("model", folder)


def test_the_processes_of_a_node_download_once(s3_root, tmp_path, monkeypatch, downloads) -> None:
    address = published(s3_root, tmp_path / "model")
    for times in (1, 2):
        ArtifactStore(S3Backend(s3_root)).fetch(address)
        assert len(downloads) == 3 * times
    downloads.clear()
    monkeypatch.setenv(NODE_CACHE_VARIABLE, str(tmp_path / "node"))
    first, second = (ArtifactStore(S3Backend(s3_root)).fetch(address) for _ in range(2))
    assert first == second and sorted(downloads) == ["a", "b", "c"]
    code = (
        "import sys; from hand1000.storage.artifacts import open_store; "
        "print(open_store(sys.argv[1]).fetch(sys.argv[2]))"
    )
    others = [
        subprocess.Popen([sys.executable, "-c", code, s3_root, address], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [other.communicate(timeout=100)[0].strip() for other in others] == [str(first)] * 2


def test_an_interrupted_download_is_resumed(s3_root, tmp_path, monkeypatch, downloads) -> None:
    address = published(s3_root, tmp_path / "model")
    monkeypatch.setenv(NODE_CACHE_VARIABLE, str(tmp_path / "node"))
    part = tmp_path / "node" / f"{address.rpartition('/')[2]}.part"
    part.mkdir(parents=True)
    (part / "a").write_text("a" * 1000)
    (part / "b").write_text("half")
    folder = ArtifactStore(S3Backend(s3_root)).fetch(address)
    assert downloads == ["b", "c"] and not part.exists()
    assert {path.name: path.read_text() for path in folder.iterdir()} == {name: name * 1000 for name in "abc"}


def test_a_damaged_object_is_not_cached(s3_root, tmp_path, monkeypatch) -> None:
    address = published(s3_root, tmp_path / "model")
    S3Backend(s3_root).write(f"{address.removeprefix(s3_root + '/')}/b", b"x" * 1000)
    monkeypatch.setenv(NODE_CACHE_VARIABLE, str(tmp_path / "node"))
    with pytest.raises(Hand1000Error, match="b: its bytes are not those that were written"):
        ArtifactStore(S3Backend(s3_root)).fetch(address)
    assert [path.name for path in (tmp_path / "node").iterdir() if path.is_dir() and path.suffix != ".part"] == []


def test_a_users_folder_is_cached_too(s3_root, tmp_path, monkeypatch) -> None:
    published(s3_root, tmp_path / "model")
    monkeypatch.setenv(NODE_CACHE_VARIABLE, str(tmp_path / "node"))
    source = f"{s3_root}/artifacts"
    folder = local_copy(source)
    assert folder.parent == tmp_path / "node" and len([path for path in folder.rglob("*") if path.is_file()]) == 4
    local_copy.cache_clear()
    assert local_copy(source) == folder
