"""Digests of JSON values and folders."""

import pytest

from hand1000.core.errors import Hand1000Error
from hand1000.storage.digests import Manifest, digest_json
from tests.support.stores import FILES, folder_with


def test_equal_json_has_one_digest():
    assert digest_json({"a": 1, "b": [1.5, None]}) == digest_json({"b": [1.5, None], "a": 1})
    assert digest_json(Manifest(files=())) == digest_json({"files": []}) != digest_json({"files": None})
    with pytest.raises(ValueError):
        digest_json(float("nan"))


def test_a_link_is_refused(store, tmp_path):
    folder_with(tmp_path / "a", FILES)
    (tmp_path / "a" / "link").symlink_to("model.json")
    with pytest.raises(Hand1000Error, match="link: not a plain file"):
        store.publish("model", tmp_path / "a")
