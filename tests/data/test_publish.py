"""Published datasets: the same typed columns in every split, which `datasets` loads."""

import datasets
import pytest

from hand1000.captions.records import CaptionRecord
from hand1000.core.errors import Hand1000Error
from hand1000.data.imageset import ImageRecord, read_image_set, write_metadata, write_typed_metadata
from hand1000.data.items import Problem
from hand1000.data.prepare import REPORT, PreparationReport
from hand1000.data.problem_kinds import BAD_BOX, REMEDIES
from hand1000.data.publish import CARD, SPLITS, publish_dataset
from hand1000.storage.files import write_json
from tests.support.hagrid_source import select
from tests.support.layouts import write_images


def record(index: int, **fields) -> ImageRecord:
    return ImageRecord(
        file_name=f"{index}.png", caption="a man", gesture="four", user_id=f"p{index}", source="0" * 64, **fields
    )


FULL = {
    "bbox": (0.0, 0.25, 1.0, 0.5),
    "captions": ("a man", "a boy"),
    "attributes": {"skin": "dark"},
    "provenance": "x",
}


@pytest.mark.parametrize("full", SPLITS)
def test_columns_are_typed_even_if_one_split_has_no_value(tmp_path, full):
    """`datasets` refuses a column that is null throughout one split, if JSON is all that says its type."""
    captions = {}
    for split, indices in (("train", range(4)), ("test", range(4, 6))):
        write_images(tmp_path / "prepared" / split, indices)
        records = [record(index, **(FULL if split == full else {})) for index in indices]
        write_metadata(tmp_path / "prepared" / split, records)
        captions[split] = {
            item.file_name: CaptionRecord(
                file_name=item.file_name, caption="a man", captioner="x", text="a man, y", writer="rule"
            )
            for item in records
        }
    problem = Problem(kind=BAD_BOX, count=2, names=("a.png: x", "b.png: y"), remedy=REMEDIES[BAD_BOX])
    report = PreparationReport(train=4, test=2, unusable=(), warnings=(), filter_counts={}, problems=(problem,))
    write_json(tmp_path / "prepared" / REPORT, report.model_dump(mode="json"))
    out = tmp_path / "out"
    out.mkdir()
    publish_dataset(tmp_path / "prepared", captions, [], out)

    for name, options in (("imagefolder", {"data_dir": str(out)}), (str(out), {})):
        loaded = datasets.load_dataset(name, cache_dir=str(tmp_path / "cache"), **options)
        assert loaded["train"].features == loaded["test"].features
        rows = {split: loaded[split][0] for split in SPLITS}
        other = next(split for split in SPLITS if split != full)
        assert rows[full]["bbox"] == list(FULL["bbox"]) and rows[other]["bbox"] is None
        assert rows[full]["captions"] == ["a man", "a boy"] and rows[full]["attributes"] == '{"skin":"dark"}'
        assert rows["train"]["text"] == "a man, y" and rows["train"]["image"].size == (24, 24)
    chosen = select(out, 4, 2)
    assert {item.bbox for item in (chosen.train if full == "train" else chosen.test)} == {FULL["bbox"]}
    assert chosen.train[0].caption == "a man, y" and not chosen.problems
    assert "- box not usable: 2 (a.png: x; b.png: y); correct it" in (out / CARD).read_text()


def test_typed_records_are_read_as_they_were_written(tmp_path):
    write_images(tmp_path, range(2))
    records = [record(0, **FULL), record(1)]
    write_typed_metadata(tmp_path, records)
    assert read_image_set(tmp_path) == records
    (tmp_path / "metadata.parquet").write_text("x")
    with pytest.raises(Hand1000Error, match="metadata.parquet: cannot be read as Parquet"):
        read_image_set(tmp_path)
