"""Bounds of Parquet files: the sizes of their pages are known before pyarrow reads one."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hand1000.core.errors import Hand1000Error
from hand1000.data import parquet
from hand1000.data.imageset import TYPED_METADATA, read_image_set
from hand1000.data.items import IssueLog
from hand1000.data.parquet import open_parquet
from hand1000.data.sources.archives import ParquetArchive
from tests.support.layouts import LAYOUTS

SIZE = 100_000


def write_values(path: Path, **options: object) -> Path:
    """A file with large, small, repeated and nested values."""
    table = pa.table(
        {
            "large": [bytes([number]) * SIZE for number in range(20)],
            "text": [f"a caption {number}" for number in range(20)],
            "same": ["the same"] * 20,
            "boxes": [[[0.1, 0.2, 0.3, 0.4]] * (number % 3) for number in range(20)],
            "none": pa.array([None] * 20, pa.string()),
        }
    )
    pq.write_table(table, path, **options)
    return path


OPTIONS = {
    "compression": ("NONE", "SNAPPY", "ZSTD"),
    "data_page_version": ("1.0", "2.0"),
    "use_dictionary": (True, False),
    "write_statistics": (True, False),
    "write_page_checksum": (True,),
}


@pytest.mark.parametrize("values", itertools.product(*OPTIONS.values()), ids=str)
def test_the_sizes_of_all_pages_are_found(tmp_path: Path, values: tuple) -> None:
    path = write_values(tmp_path / "x.parquet", row_group_size=7, **dict(zip(OPTIONS, values, strict=True)))
    file, max_rows = open_parquet(path, "x")
    assert file.read().num_rows == 20
    # Seven values in a page, of which each has its length in four bytes; a dictionary holds them too.
    assert parquet._BATCH_BYTES // max_rows == pytest.approx(7 * (SIZE + 4), rel=0.01)


def test_a_dictionary_at_the_offset_0_is_ignored(tmp_path: Path) -> None:
    path = write_values(tmp_path / "x.parquet", use_dictionary=False)
    column = pq.ParquetFile(path).metadata.row_group(0).column(1)
    odd = SimpleNamespace(
        has_dictionary_page=True,
        dictionary_page_offset=0,
        data_page_offset=column.data_page_offset,
        total_compressed_size=column.total_compressed_size,
    )
    with open(path, "rb") as file:
        assert [*parquet._iter_pages(file, odd, "x")] == [*parquet._iter_pages(file, column, "x")] != []


@pytest.mark.parametrize("attributes", ["[" * 5000, "{", 1, ["a"]], ids=["deep", "cut", "number", "list"])
def test_attributes_that_are_not_json_are_one_line(tmp_path: Path, attributes: object) -> None:
    pq.write_table(pa.table({"file_name": ["a.png"], "attributes": [attributes]}), tmp_path / TYPED_METADATA)
    with pytest.raises(Hand1000Error, match="line 1: attributes: not JSON"):
        read_image_set(tmp_path)


def test_a_page_above_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_values(tmp_path / "x.parquet")
    monkeypatch.setattr(parquet, "MAX_PAGE_BYTES", 15 * SIZE)
    with pytest.raises(Hand1000Error, match=r"y: the column 'large' has a page of 2 MB .* row_group_size"):
        open_parquet(path, "y")
    assert open_parquet(write_values(path, row_group_size=10), "y")[0].num_row_groups == 2


def test_a_page_of_too_many_repeated_values_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"x": ["a"] * 5000}), tmp_path / "x.parquet")
    monkeypatch.setattr(parquet, "MAX_PAGE_VALUES", 4999)
    with pytest.raises(Hand1000Error, match="5000 values, more than"):
        open_parquet(tmp_path / "x.parquet", "x")


def test_large_pages_make_small_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LAYOUTS["Parquet with embedded images"][0](tmp_path)
    path = next(tmp_path.rglob("*.parquet"))
    whole = ParquetArchive(path, "x", "x", IssueLog("x"))
    monkeypatch.setattr(parquet, "_BATCH_BYTES", 1)
    archive = ParquetArchive(path, "x", "x", IssueLog("x"))
    assert archive._max_rows == 1
    assert [archive.read(name) for name in archive.names()] == [whole.read(name) for name in whole.names()]
    assert list(archive.rows()) == list(whole.rows())


def test_a_damaged_page_header_is_one_line(tmp_path: Path) -> None:
    path = write_values(tmp_path / "x.parquet")
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    start = min(filter(None, (column.dictionary_page_offset, column.data_page_offset)))
    data = path.read_bytes()
    for damage in (b"\xff" * 12, b"\x00", b"\x15\x04\x15\x01", b"\x1d", b"\x18\xff\xff\xff\x7f", b"\x1c" * 20):
        path.write_bytes(data[:start] + damage + data[start + len(damage) :])
        with pytest.raises(Hand1000Error, match="cannot be read as Parquet .page header at byte"):
            open_parquet(path, "x")
