"""Values kept by key as they are computed: a stopped run computes no key twice and loses none."""

from pathlib import Path

import pytest

from hand1000.captions.cache import compute_missing
from hand1000.storage.artifacts import open_store


class SimulatedKill(Exception):  # noqa: N818 (a kill, not an error)
    """Raised in place of kill -9."""


class CountingModel:
    """Return a value for each key, remember the keys, and die at one of them."""

    def __init__(self, keys: list[str], dies_at: str = "") -> None:
        self.keys, self.dies_at = keys, dies_at
        self.computed: list[str] = []

    def __call__(self, indices: list[int]) -> list[str]:
        batch = [self.keys[index] for index in indices]
        if self.dies_at in batch:
            raise SimulatedKill
        self.computed += batch
        return [f"value of {key}" for key in batch]


def compute(root: str, model: CountingModel) -> list:
    return compute_missing(
        model.keys,
        model,
        cache=open_store(root).key_value_cache("captions", "key"),
        batch_size=2,
        on_progress=lambda *_: None,
    )


@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_no_key_is_computed_twice(place: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    root = str(tmp_path) if place == "folder" else request.getfixturevalue("s3_root")
    keys = ["e", "b", "a", "d", "c", "b"]
    stopped = CountingModel(keys, dies_at="d")
    with pytest.raises(SimulatedKill):
        compute(root, stopped)
    assert stopped.computed == ["a", "b"]
    resumed = CountingModel(keys)
    assert compute(root, resumed) == [f"value of {key}" for key in keys]
    assert resumed.computed == ["c", "d", "e"]
    later = CountingModel(["a", "f"])
    assert compute(root, later) == ["value of a", "value of f"]
    assert later.computed == ["f"]


def test_a_damaged_cache_file_loses_only_its_own_values(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    compute(str(tmp_path), CountingModel(["a"]))
    compute(str(tmp_path), CountingModel(["b"]))
    files = sorted(tmp_path.glob("*/captions/key/*.json"))
    assert len(files) == 2
    files[0].write_text("{")
    again = CountingModel(["a", "b"])
    assert compute(str(tmp_path), again) == ["value of a", "value of b"]
    assert len(again.computed) == 1 and files[0].name in caplog.text
