"""Errors and settings of S3, on a real server."""

import os

import pytest

from hand1000.core.errors import Hand1000Error
from hand1000.storage.artifacts import ArtifactStore, open_store
from hand1000.storage.digests import tree_manifest
from hand1000.storage.s3 import S3Backend
from tests.support.stores import FILES, KEY, folder_with, fresh


def test_a_missing_bucket_is_named(s3_server, tmp_path):
    store = open_store("s3://hand1000-not-there/prefix")
    for attempt in (
        lambda: store.get_result("stage1", KEY),
        lambda: store.publish("model", folder_with(tmp_path / "a", FILES)),
        lambda: store.checkpoint("stage3", KEY).save(folder_with(tmp_path / "b", FILES)),
    ):
        with pytest.raises(Hand1000Error, match="s3://hand1000-not-there/prefix/.*no such bucket"):
            attempt()


@pytest.mark.parametrize(
    ("variable", "value", "remedy"),
    [
        ("AWS_ACCESS_KEY_ID", "nobody", "correct AWS_ACCESS_KEY_ID"),
        ("AWS_SECRET_ACCESS_KEY", "wrong", "correct AWS_SECRET_ACCESS_KEY"),
        ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9", "cannot be reached"),
        ("AWS_ENDPOINT_URL_S3", "127.0.0.1", "not a URL"),
    ],
)
def test_wrong_settings_are_reported_in_one_line(s3_root, tmp_path, monkeypatch, variable, value, remedy):
    monkeypatch.setenv(variable, value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    store = fresh(open_store(s3_root))
    for attempt in (
        lambda: store.get_result("stage1", KEY),
        lambda: store._backend.put_tree(folder_with(tmp_path / "a", FILES), "tree", tree_manifest(tmp_path / "a")),
        lambda: store._backend.file_sizes("tree"),
        lambda: store._backend.get_tree("tree", tree_manifest(folder_with(tmp_path / "a", FILES)), tmp_path / "into"),
    ):
        with pytest.raises(Hand1000Error, match=remedy) as caught:
            attempt()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        ("AccessDenied", "s3:PutObject"),
        ("403", "s3:PutObject"),
        ("ExpiredToken", "sign in again"),
        ("PermanentRedirect", "set AWS_REGION"),
        ("SlowDown", "refused with SlowDown; try again later"),
    ],
)
def test_other_refusals_name_their_remedy(code, remedy):
    # SeaweedFS never answers with these, so the answer is made here.
    from botocore.exceptions import ClientError

    from hand1000.storage.s3_errors import translate_s3_errors

    with pytest.raises(Hand1000Error, match=f"s3://b/k: .*{remedy}"), translate_s3_errors("s3://b/k"):
        raise ClientError({"Error": {"Code": code}}, "PutObject")


def test_flytes_variables_reach_the_server(s3_server, s3_root, tmp_path, monkeypatch):
    for flyte, aws in (
        ("FLYTE_AWS_ENDPOINT", "AWS_ENDPOINT_URL_S3"),
        ("FLYTE_AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID"),
        ("FLYTE_AWS_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY"),
    ):
        monkeypatch.setenv(flyte, os.environ[aws])
        monkeypatch.delenv(aws)
    monkeypatch.delenv("AWS_REGION")
    store = ArtifactStore(S3Backend(s3_root))
    assert store.is_complete(store.publish("model", folder_with(tmp_path / "a", FILES)))


def test_a_full_disk_during_a_download_is_reported(s3_root, tiny_disk, tmp_path, monkeypatch):
    store = open_store(s3_root)
    address = store.publish("model", folder_with(tmp_path / "a", {"weights": "x" * 2_000_000}))
    monkeypatch.setenv("HAND1000_NODE_CACHE", str(tiny_disk))
    with pytest.raises(Hand1000Error, match="no space left"):
        store.fetch(address)


def test_a_large_file_is_transferred_in_parts(s3_root, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "large").write_bytes(os.urandom(1024) * (20 * 1024))
    store = open_store(s3_root)
    digest = tree_manifest(tmp_path / "a").files[0].sha256
    folder = store.fetch(store.publish("model", tmp_path / "a"))
    assert tree_manifest(folder).files[0].sha256 == digest
