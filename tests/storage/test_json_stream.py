"""The members of a large JSON object."""

import io
import json

import pytest

from hand1000.storage import json_stream


def entries(count):
    """Members with all that may mislead whoever looks for a member's end."""
    return {f'{index} "}}, ': {"a": [index], "b": {"c": '}, "x": {'}, "d": {}, "e": "ä" * 40} for index in range(count)}


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("block", [200, 1000, 1 << 20])
def test_members_are_complete_and_in_order(monkeypatch, block, indent):
    monkeypatch.setattr(json_stream, "BLOCK_BYTES", block)
    text = b"\xef\xbb\xbf \n" + json.dumps(entries(60), indent=indent, ensure_ascii=False).encode() + b"\n"
    read = [(name, json.loads(bytes(value))) for name, value in json_stream.iter_members(io.BytesIO(text))]
    assert read == list(entries(60).items())


@pytest.mark.parametrize("block", [200, 1 << 20])
def test_the_members_before_an_error_are_yielded_first(monkeypatch, block):
    monkeypatch.setattr(json_stream, "BLOCK_BYTES", block)
    whole = json.dumps(entries(30))
    middle = whole.index('{"a": [17]')
    for text, count in ((whole[:middle], 17), (whole[:middle] + "]" + whole[middle + 1 :], 17), (whole[:-1], 29)):
        names = []
        with pytest.raises(json_stream.MalformedJsonError, match="not JSON"):
            for name, _ in json_stream.iter_members(io.BytesIO(text.encode())):
                names.append(name)
        assert names == list(entries(count))


@pytest.mark.parametrize(("text", "message"), [("", "empty"), ("[1]", "not a JSON object"), ("{", "not JSON")])
def test_a_text_that_is_no_object_is_refused(text, message):
    with pytest.raises(json_stream.MalformedJsonError, match=message):
        list(json_stream.iter_members(io.BytesIO(text.encode())))


def test_a_member_without_end_stops_the_reading(monkeypatch):
    monkeypatch.setattr(json_stream, "BLOCK_BYTES", 100)
    stream = io.BytesIO(b'{"a": "' + b"x" * 10_000)
    with pytest.raises(json_stream.MalformedJsonError):
        list(json_stream.iter_members(stream))
    assert stream.tell() <= 400


def test_an_object_without_members_has_none():
    assert list(json_stream.iter_members(io.BytesIO(b"{}"))) == []
