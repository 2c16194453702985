"""Every layout that people have, with the same images: what is read of it, and that docs/data.md says so."""

import pytest

from hand1000.core.errors import Hand1000Error
from hand1000.data.check import check_source, list_gestures
from hand1000.data.items import IssueLog
from hand1000.data.prepare import prepare_image_sets
from hand1000.data.problem_kinds import REPEATS
from hand1000.data.sources.opening import open_dataset
from hand1000.data.sources.reader import ImageReader
from hand1000.storage.digests import tree_manifest
from tests.support.hagrid_source import data_settings, people, select
from tests.support.layouts import BOX, BOXES, CAPTIONS, LAYOUTS, NUM_IMAGES, PEOPLE, SPLIT, write_images
from tests.support.short_demo import ROOT


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_read_completely(tmp_path, name):
    write, known = LAYOUTS[name]
    write(tmp_path / "source")
    issues = IssueLog("source")
    reader = ImageReader(open_dataset(tmp_path / "source"), issues)
    train, test = reader.read("four")
    items = [*train, *(test or ())]
    assert len(items) == NUM_IMAGES == issues.num_images
    assert len({(item.key, item.file in {other.file for other in train}) for item in items}) == NUM_IMAGES
    assert {problem.kind for problem in issues.problems} <= {REPEATS} and not issues.unusable and not issues.warnings
    assert (test is not None) == (SPLIT in known)
    found = {fact for fact, has in (
        (CAPTIONS, all(item.caption and item.caption.startswith("a person in room") for item in items)),
        (BOXES, all(item.bbox == tuple(BOX) for item in items)),
        (PEOPLE, {item.user_id for item in items} == {f"p{index}" for index in range(4)}),
    ) if has}  # fmt: skip
    assert found == known - {SPLIT}
    assert not any(item.caption or item.bbox for item in items) or known & {CAPTIONS, BOXES}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_split_by_person_holds_and_the_images_are_there(tmp_path, name):
    write, known = LAYOUTS[name]
    write(tmp_path / "source")
    chosen = select(tmp_path / "source", 6, 2)
    assert not people(chosen.train) & people(chosen.test)
    assert PEOPLE not in known or people(chosen.train) | people(chosen.test) <= {f"p{index}" for index in range(4)}
    prepare_image_sets(chosen, tmp_path / "out", data_settings(), resolution=24, seed=1)
    again = select(tmp_path / "source", 6, 2)
    prepare_image_sets(again, tmp_path / "again", data_settings(), resolution=24, seed=1)
    assert tree_manifest(tmp_path / "out").digest == tree_manifest(tmp_path / "again").digest
    assert chosen.cache_key_fields() == again.cache_key_fields()


def test_the_documentation_says_what_each_layout_gives():
    lines = (ROOT / "docs/data.md").read_text().splitlines()
    lines = [line.strip("|") for line in lines if line.startswith("| ") and "---" not in line]
    rows = [[cell.strip(" `") for cell in line.split("|")] for line in lines]
    start = next(index for index, row in enumerate(rows) if row[0] == "layout")
    facts = rows[start][2:]
    table = {}
    for row in rows[start + 1 : start + 1 + len(LAYOUTS)]:
        table[row[0]] = {fact for fact, cell in zip(facts, row[2:], strict=True) if cell.startswith("yes")}
    assert table == {name: known for name, (_, known) in LAYOUTS.items()}


def test_a_folder_of_another_kind_is_named(tmp_path):
    write_images(tmp_path / "four")
    write_images(tmp_path / "alice", range(2))
    write_images(tmp_path / "four" / "more", range(1))
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances.json").write_text("{}")
    write_images(tmp_path / "__MACOSX", range(1))
    (tmp_path / ".cache" / "x").mkdir(parents=True)
    (tmp_path / "labels.yaml").write_text("x")
    (tmp_path / "four" / "cat.psb").write_text("x")
    (tmp_path / "four" / "._0.png").write_text("x")
    report = check_source(open_dataset(tmp_path), "four")
    found = {problem.kind: problem.names for problem in report.problems}
    assert found == {
        "file not understood": ("annotations/", "four/cat.psb", "labels.yaml"),
        "image outside the folders that are read": ("alice/", "four/more/"),
    }
    assert report.images == NUM_IMAGES


def test_gestures_are_listed_in_every_layout(tmp_path):
    for number, name in enumerate(("metadata.jsonl above the images", "HaGRID's sample of 30,000", "kohya folders")):
        LAYOUTS[name][0](tmp_path / str(number))
        assert list_gestures(open_dataset(tmp_path / str(number))) == ["four"]
    write_images(tmp_path / "none")
    with pytest.raises(Hand1000Error, match="name it with --gesture"):
        list_gestures(open_dataset(tmp_path / "none"))


def test_a_source_below_the_only_folder_is_found(tmp_path):
    LAYOUTS["metadata.csv"][0](tmp_path / "unpacked" / "images")
    assert len(select(tmp_path / "unpacked", 6, 2).train) == 6
