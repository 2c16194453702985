"""What S3 servers do besides failing: late listings and reads, refusals in the middle, answers of something else."""

import re

import pytest

from hand1000.core.errors import Hand1000Error, TransientError
from hand1000.storage.artifacts import ArtifactStore
from hand1000.storage.s3 import S3Backend
from tests.support.faulty_proxy import FaultyProxy, faulty_proxy
from tests.support.stores import FILES, KEY, files_of, folder_with


@pytest.fixture
def proxy(s3_server, monkeypatch):
    with faulty_proxy(s3_server, share=0.0, seed=1) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
        yield proxy


def new_store(root: str) -> ArtifactStore:
    """The store as another machine sees it."""
    return ArtifactStore(S3Backend(root))


def publish(root: str, folder) -> str:
    store = new_store(root)
    address = store.publish("model", folder_with(folder, FILES))
    store.put_result("model", KEY, {"address": address})
    return address


def test_a_late_listing_hides_nothing(proxy: FaultyProxy, s3_root, tmp_path):
    proxy.edit = lambda method, path, body: (
        re.sub(b"<Contents>.*?</Contents>", b"", body) if "list-type" in path else body
    )
    address = publish(s3_root, tmp_path / "a")
    assert new_store(s3_root).get_result("model", KEY) == {"address": address}
    assert files_of(new_store(s3_root).fetch(address)) == FILES


def test_a_late_read_is_waited_for(proxy: FaultyProxy, s3_root, tmp_path):
    address, late = publish(s3_root, tmp_path / "a"), [1, 2]
    manifest = f"{address.rpartition('/')[2]}.json"
    proxy.deny = lambda method, path: (404, "NoSuchKey") if manifest in path and late and late.pop() else None
    assert files_of(new_store(s3_root).fetch(address)) == FILES and not late


def test_a_bucket_may_be_read_only(proxy: FaultyProxy, s3_root, tmp_path):
    address = publish(s3_root, tmp_path / "a")
    proxy.deny = lambda method, path: None if method in ("GET", "HEAD") else (403, "AccessDenied")
    store = new_store(s3_root)
    assert store.get_result("model", KEY) == {"address": address}
    assert files_of(store.fetch(address)) == FILES
    store.checkpoint("model", KEY).clear()
    assert store.key_value_cache("captions", "c").read() == {}
    for attempt in (
        lambda: store.publish("model", folder_with(tmp_path / "b", FILES | {"more": "x"})),
        lambda: store.put_result("model", KEY, {"address": address}),
        lambda: store.key_value_cache("captions", "c").add({"a": 1}),
    ):
        with pytest.raises(Hand1000Error, match="access denied; the key needs .*s3:PutObject") as caught:
            attempt()
        assert not isinstance(caught.value, TransientError) and "\n" not in str(caught.value)


@pytest.mark.parametrize("number", range(0, 9, 2))
def test_a_key_revoked_in_the_middle_is_named(proxy: FaultyProxy, s3_root, tmp_path, number):
    requests: list[str] = []
    proxy.deny = lambda *request: (
        requests.append(request) or ((403, "InvalidAccessKeyId") if len(requests) > number else None)
    )
    with pytest.raises(Hand1000Error, match="the access key id is unknown") as caught:
        new_store(s3_root).fetch(publish(s3_root, tmp_path / "a"))
    assert "\n" not in str(caught.value)
    proxy.deny = lambda method, path: None
    assert files_of(new_store(s3_root).fetch(publish(s3_root, tmp_path / "b"))) == FILES


@pytest.mark.parametrize(
    ("status", "code", "kind", "message"),
    [
        (500, "InternalError", TransientError, "may have no key for HAND1000_S3_ENCRYPTION=AES256: give it one, unset"),
        (400, "InvalidArgument", Hand1000Error, "refused with InvalidArgument on purpose; correct the request"),
        (400, "RequestTimeout", TransientError, "try again later"),
    ],
)
def test_a_refused_write_says_what_it_is(proxy: FaultyProxy, s3_root, monkeypatch, status, code, kind, message):
    monkeypatch.setenv("HAND1000_S3_ENCRYPTION", "AES256")
    proxy.deny = lambda method, path: (status, code)
    with pytest.raises(Hand1000Error, match=message) as caught:
        S3Backend(s3_root).write("key", b"data")
    assert type(caught.value) is kind


@pytest.mark.parametrize("answer", [b"<html>sign in</html>", b"", b"<", b'<?xml version="1.0"?><a><b></a>'])
def test_the_answer_of_something_else_is_one_line(proxy: FaultyProxy, s3_root, answer):
    proxy.edit = lambda method, path, body: answer
    with pytest.raises(Hand1000Error) as caught:
        assert S3Backend(s3_root).file_sizes("artifacts") == {}
        raise Hand1000Error("an empty listing")
    assert "\n" not in str(caught.value)
