"""The one guard between names from outside and paths."""

import pytest

from hand1000.core.errors import Hand1000Error
from hand1000.storage.keys import find_key_fault, safe_join

BAD_KEYS = {
    "": "empty",
    "/a": "absolute",
    "../a": "part . or ..",
    "a/..": "part . or ..",
    "./a": "part . or ..",
    "a//b": "empty part",
    "a/": "empty part",
    "a\\b": "backslash",
    "a\nb": "control",
    "a\0b": "control",
    "a\x1b[1mb": "control",
    "a\udcffb": "UTF-8",
    "a" * 256: "too long",
    "/".join(["abc"] * 300): "too long",
}


@pytest.mark.parametrize("key", BAD_KEYS)
def test_a_bad_key_is_named_in_one_line(tmp_path, key):
    with pytest.raises(Hand1000Error, match=BAD_KEYS[key]) as caught:
        safe_join(tmp_path, key)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 300


@pytest.mark.parametrize("key", ["a", "a/b.c", "..a/b..", ".hidden", "ünïcode/手.png", "a b", "a:b", "~", "-x"])
def test_a_plain_key_is_joined(tmp_path, key):
    assert find_key_fault(key) == ""
    assert safe_join(tmp_path, key) == tmp_path / key
