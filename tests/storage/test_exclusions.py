"""The exclusion list of a root: whom it holds, two writers, damage, and that it holds no name."""

import pytest

from hand1000.core.errors import Hand1000Error
from hand1000.storage.artifacts import open_store
from hand1000.storage.exclusions import Exclusions, add_exclusions, read_exclusions


@pytest.fixture
def backend(tmp_path):
    return open_store(str(tmp_path)).backend


def test_it_holds_whom_it_was_to_exclude_and_no_name(backend, tmp_path):
    assert not read_exclusions(backend)
    # No name consists of hexadecimal digits, of which some digest may be a match.
    add_exclusions(backend, ["Ann", "Bob"], ["uvw", "four/xyz"])
    exclusions = read_exclusions(backend)
    assert exclusions and exclusions.holds_person("Ann") and not exclusions.holds_person("ann")
    assert exclusions.holds_image("call", "uvw") and exclusions.holds_image("four", "xyz")
    assert not exclusions.holds_image("call", "xyz") and not exclusions.holds_person("uvw")
    text = "".join(path.read_text() for path in (tmp_path / "exclusions").iterdir())
    assert not any(name in text for name in ("Ann", "Bob", "uvw", "xyz"))
    # The same again adds nothing, so that the cache keys of later datasets stay.
    assert add_exclusions(backend, ["Bob"], ["uvw"]) == exclusions == read_exclusions(backend)


def test_two_writers_lose_nothing(backend):
    first, second = Exclusions().extended(["Ann"], []), Exclusions().extended(["Bob"], [])
    assert first.parts[0].salt != second.parts[0].salt
    from hand1000.storage.digests import canonical_json, digest_bytes

    for part in (*first.parts, *second.parts):
        data = canonical_json(part).encode()
        backend.write(f"exclusions/{digest_bytes(data)}.json", data)
    both = add_exclusions(backend, ["Eve"], [])
    assert all(map(both.holds_person, ("Ann", "Bob", "Eve"))) and read_exclusions(backend) == both
    assert len({part.salt for part in both.parts}) == 2 and len(both.parts) == 3


def test_a_damaged_list_excludes_nobody_silently(backend, tmp_path):
    add_exclusions(backend, ["Ann"], [])
    (path,) = (tmp_path / "exclusions").iterdir()
    path.write_text(path.read_text().replace("people", "folks"))
    with pytest.raises(Hand1000Error, match="damaged, so it is unknown whom it excludes; restore it"):
        read_exclusions(backend)
