"""Transfers of files in parts: bytes that are verified on the way, retries, and what an error leaves."""

import io
import os
from pathlib import Path

import pytest
from botocore.awsrequest import AWSResponse
from urllib3 import HTTPResponse

from hand1000.core.errors import Hand1000Error
from hand1000.storage import s3_transfer
from hand1000.storage.digests import FileEntry, Manifest, tree_manifest
from hand1000.storage.s3 import S3Backend
from tests.support.faulty_proxy import faulty_proxy

PARTS = 7
SIZE = 100_000


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/large").write_bytes(os.urandom(SIZE))
    (tmp_path / "source/empty").touch()
    return tmp_path / "source"


@pytest.fixture
def backend(s3_root: str, source: Path, monkeypatch: pytest.MonkeyPatch) -> S3Backend:
    """A bucket with the tree of `source`, which downloads come from in parts."""
    backend = S3Backend(s3_root)
    backend.put_tree(source, "tree", tree_manifest(source))
    monkeypatch.setattr(s3_transfer, "PART_BYTES", SIZE // PARTS)
    return backend


def test_parts_that_break_off_are_continued(backend, source, s3_server, s3_root, tmp_path, monkeypatch):
    manifest = tree_manifest(source)
    with faulty_proxy(s3_server, share=0.05, seed=2) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "8")
        for number in range(5):
            target = tmp_path / f"target{number}"
            assert S3Backend(s3_root).get_tree("tree", manifest, target) == {"large", "empty"}
            assert tree_manifest(target) == manifest
        assert proxy.struck["cut within"] > 0


@pytest.mark.parametrize("change", [-SIZE, -SIZE // 2, -1, 1, 0])
def test_other_bytes_are_not_verified(backend, source, tmp_path, change):
    manifest, data = tree_manifest(source), (source / "large").read_bytes()
    data = data[: SIZE + change] + b"x" * change if change else b"x" + data[1:]
    backend.write("tree/large", data)
    verified = backend.get_tree("tree", manifest, tmp_path / "target")
    # What follows the file's bytes is not downloaded.
    assert ("large" in verified) is (change == 1)
    assert (tmp_path / "target/large").read_bytes() == data[:SIZE]
    assert not list((tmp_path / "target").glob(".*"))


def test_an_error_leaves_no_partial_file(backend, source, s3_server, s3_root, tmp_path, monkeypatch):
    with faulty_proxy(s3_server, share=0.0, seed=1) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        requests: list[str] = []
        proxy.deny = lambda method, path: (
            requests.append(path) or ((403, "AccessDenied") if len(requests) > 3 else None)
        )
        with pytest.raises(Hand1000Error, match="large: access denied"):
            S3Backend(s3_root).get_tree("tree", tree_manifest(source), tmp_path / "target")
    assert [path.name for path in (tmp_path / "target").iterdir() if path.name != "empty"] == []


def test_a_failed_upload_in_parts_is_aborted(s3_server, s3_root, tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/large").write_bytes(b"x" * (s3_transfer.PART_BYTES + 1))
    with faulty_proxy(s3_server, share=0.0, seed=1) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        proxy.deny = lambda method, path: (403, "AccessDenied") if "partNumber=2" in path else None
        backend = S3Backend(s3_root)
        with pytest.raises(Hand1000Error, match="access denied"):
            backend.put_tree(tmp_path / "a", "tree", tree_manifest(tmp_path / "a"))
        assert not backend.client.list_multipart_uploads(Bucket=backend._bucket, Prefix=backend._prefix).get("Uploads")
    assert backend.file_sizes("tree") == {}


@pytest.mark.parametrize("answer", [200, 501])
def test_a_server_without_checksums_gets_signed_bodies(s3_root, tmp_path, answer):
    backend, requests = S3Backend(s3_root), []

    def answer_without_checksum(request, **_: object) -> AWSResponse:
        requests.append(request.headers["x-amz-content-sha256"])
        body = b"<Error><Code>NotImplemented</Code></Error>" if answer == 501 else b""
        return AWSResponse(request.url, answer, {}, HTTPResponse(io.BytesIO(body), preload_content=False))

    backend._transfer._unsigned.meta.events.register("before-send.s3.PutObject", answer_without_checksum)
    for key in ("a", "b"):
        backend.write(key, key.encode())
        assert backend.read(key) == key.encode()
    assert requests == [b"UNSIGNED-PAYLOAD"], "the second write asked again"


def test_a_file_that_changes_after_it_was_hashed_is_refused(s3_root, tmp_path):
    (tmp_path / "file").write_bytes(b"y" * 10)
    backend, manifest = S3Backend(s3_root), Manifest(files=(FileEntry(name="file", size=10, sha256="0" * 64),))
    with pytest.raises(Hand1000Error, match="BadDigest"):
        backend.put_tree(tmp_path, "tree", manifest)
    assert backend.file_sizes("tree") == {}
