"""Captioning that was cut off: nothing is looked at twice, and nothing is lost."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from hand1000.captions.collect import collect_captions
from hand1000.storage.artifacts import open_store


class Killed(Exception):
    """Stands for kill -9."""


class Counting:
    """Captions a file by its name, and dies at one of them."""

    name = "counting"

    def __init__(self, dies_at: str = "") -> None:
        self.dies_at = dies_at
        self.seen: list[str] = []

    def caption(self, images: Sequence[Path], known: Sequence[str | None]) -> list[str]:
        if any(image.name == self.dies_at for image in images):
            raise Killed
        self.seen += [image.name for image in images]
        return [f"caption of {image.name}" for image in images]


def collect(root: str, names: list[str], captioner: Counting) -> list[str]:
    return collect_captions(
        captioner,
        [Path(name) for name in names],
        [f"digest-{name}" for name in names],
        [None] * len(names),
        ledger=open_store(root).ledger("captions", "key"),
        batch_size=2,
        progress=lambda *_: None,
    )


@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_no_image_is_captioned_twice(place: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    root = str(tmp_path) if place == "folder" else request.getfixturevalue("s3_root")
    names = ["e", "b", "a", "d", "c", "b"]
    cut = Counting(dies_at="d")
    with pytest.raises(Killed):
        collect(root, names, cut)
    assert cut.seen == ["a", "b"]
    rest = Counting()
    assert collect(root, names, rest) == [f"caption of {name}" for name in names]
    assert rest.seen == ["c", "d", "e"]
    more = Counting()
    assert collect(root, ["a", "f"], more) == ["caption of a", "caption of f"]
    assert more.seen == ["f"]


def test_a_damaged_file_of_the_ledger_costs_only_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    collect(str(tmp_path), ["a"], Counting())
    collect(str(tmp_path), ["b"], Counting())
    files = sorted((tmp_path / "ledgers" / "captions" / "key").iterdir())
    assert len(files) == 2
    files[0].write_text("{")
    again = Counting()
    assert collect(str(tmp_path), ["a", "b"], again) == ["caption of a", "caption of b"]
    assert len(again.seen) == 1 and "passed over" in caplog.text
