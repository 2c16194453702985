"""Faults of networks and S3 servers: which requests are retried, and which data is never seen half."""

import io
import time
from pathlib import Path

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from urllib3 import HTTPResponse

from hand1000.core.errors import Hand1000Error, TransientError
from hand1000.storage.artifacts import ArtifactStore
from hand1000.storage.digests import tree_manifest
from hand1000.storage.s3 import S3Backend
from tests.support.faulty_proxy import FAULTS, faulty_proxy

KEY = "0" * 64


def files(folder: Path, count: int) -> Path:
    """Files of all sizes up to 100 kB."""
    folder.mkdir()
    for index in range(count):
        (folder / f"{index:03d}.bin").write_bytes(bytes([index]) * (index * 100_000 // count))
    return folder


def test_every_fault_is_tolerated(
    s3_server: str, s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with faulty_proxy(s3_server, share=0.05, seed=1) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "8")
        store = ArtifactStore(S3Backend(s3_root))
        address = store.publish("images", files(tmp_path / "a", 30))
        for number in range(12):
            store.put_result("try", KEY, {"address": address, "number": number})
            result = ArtifactStore(S3Backend(s3_root)).get_result("try", KEY)
            assert result == {"address": address, "number": number}
        fetched = ArtifactStore(S3Backend(s3_root)).fetch(address)
        assert all(
            (fetched / file.name).read_bytes() == file.read_bytes() for file in files(tmp_path / "b", 30).iterdir()
        )
        assert all(proxy.struck[fault] > 1 for fault in FAULTS), proxy.struck


def test_a_server_that_only_fails_is_reported_in_one_line(s3_server: str, s3_root: str, monkeypatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    monkeypatch.setattr("hand1000.storage.s3_transfer.MAX_READS", 2)
    with faulty_proxy(s3_server, share=1.0, seed=1) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        for fault, message in (
            ("500", "the server refused with InternalError on purpose; try again later"),
            ("503", "the server refused with SlowDown on purpose; try again later"),
            ("cut before", "the S3 endpoint cannot be reached"),
        ):
            monkeypatch.setattr(proxy, "fault", lambda fault=fault: fault)
            with pytest.raises(Hand1000Error, match=message):
                S3Backend(s3_root).read("key")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server)
    S3Backend(s3_root).write("key", b"0123456789" * 1000)
    with faulty_proxy(s3_server, share=1.0, seed=1) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        requests: list[str] = []
        monkeypatch.setattr(proxy, "fault", lambda: requests.append("") or "cut within")
        with pytest.raises(Hand1000Error, match="the S3 endpoint cannot be reached"):
            S3Backend(s3_root).read("key")
        assert len(requests) == 2


@pytest.mark.parametrize(
    ("asked", "kind", "key"),
    [("", None, None), ("AES256", b"AES256", None), ("aws:kms", b"aws:kms", None), ("aws:kms,k1", b"aws:kms", b"k1")],
)
def test_the_server_is_asked_to_encrypt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, kind: bytes | None, key: bytes | None
) -> None:
    """The tests' server has no encryption keys, so the request is intercepted and read."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "some")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("HAND1000_S3_ENCRYPTION", asked)
    backend, headers = S3Backend("s3://bucket/root"), []

    def read(request: AWSPreparedRequest, **_: object) -> AWSResponse:
        names = ("x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id")
        headers.append(tuple(request.headers.get(name) for name in names))
        checksum = {"x-amz-checksum-sha256": request.headers["x-amz-checksum-sha256"].decode()}
        return AWSResponse(request.url, 200, checksum, HTTPResponse(io.BytesIO(), preload_content=False))

    backend._transfer._unsigned.meta.events.register("before-send.s3.PutObject", read)
    backend.write("key", b"data")
    folder = files(tmp_path / "a", 2)
    backend.put_tree(folder, "tree", tree_manifest(folder))
    assert headers == [(kind, key)] * 3


@pytest.mark.parametrize("asked", ["kms", "AES256,key", "none"])
def test_an_unknown_encryption_is_refused(s3_root: str, monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    monkeypatch.setenv("HAND1000_S3_ENCRYPTION", asked)
    with pytest.raises(Hand1000Error, match="HAND1000_S3_ENCRYPTION: .* choose AES256"):
        S3Backend(s3_root).write("key", b"data")


@pytest.mark.parametrize("asked", ["AES256", "aws:kms,k1"])
def test_a_server_without_a_key_is_named_at_once(
    s3_root: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, asked: str
) -> None:
    monkeypatch.setenv("HAND1000_S3_ENCRYPTION", asked)
    backend, folder, start = S3Backend(s3_root), files(tmp_path / "a", 1), time.monotonic()
    for write in (
        lambda: backend.write("key", b"data"),
        lambda: backend.put_tree(folder, "tree", tree_manifest(folder)),
    ):
        with pytest.raises(Hand1000Error, match="HAND1000_S3_ENCRYPTION: .*no key") as error:
            write()
        assert not isinstance(error.value, TransientError)
    assert time.monotonic() - start < 20
