"""Opening of Parquet files whose pages are of a bounded size, since pyarrow reads each page as a whole.

pyarrow does not tell the sizes of pages, so their headers are read here: structs of Thrift's compact protocol.
"""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from hand1000.core.errors import Hand1000Error

if TYPE_CHECKING:
    from pyarrow.parquet import ColumnChunkMetaData, ParquetFile

MAX_PAGE_BYTES = 256_000_000
"""Uncompressed size of the largest page that is read; reading one takes about twice that memory."""

MAX_PAGE_VALUES = 20_000_000
"""Most values of a page: repeated ones take no space in the file, but do in memory."""

_HEADER_BYTES = (1 << 12, 1 << 16, 1 << 20)
_UNCOMPRESSED, _COMPRESSED, _DATA_PAGES, _NUM_VALUES = 2, 3, (5, 8), 1
_BATCH_BYTES = 256_000_000


class _PageError(ValueError):
    """A page header that is malformed."""


def open_parquet(path: Path, address: str) -> "tuple[ParquetFile, int]":
    """Open a Parquet file; return it with the most rows that a batch may have.

    Args:
        path: The file.
        address: What the errors call it.

    Raises:
        Hand1000Error: A page is too large.
        pyarrow.ArrowException: The file is malformed.
        OSError: It cannot be read.
    """
    import pyarrow.parquet as pq

    parquet = pq.ParquetFile(path)
    metadata, largest = parquet.metadata, 1
    with open(path, "rb") as file:
        for group in range(metadata.num_row_groups):
            for index in range(metadata.num_columns):
                column = metadata.row_group(group).column(index)
                if not metadata.row_group(group).num_rows and not column.num_values:
                    continue  # An empty group has no page.
                for size, num_values in _iter_pages(file, column, address):
                    if size > MAX_PAGE_BYTES or num_values > MAX_PAGE_VALUES:
                        raise Hand1000Error(
                            f"{address}: the column {column.path_in_schema!r:.60} has a page of {size / 1e6:.0f} MB "
                            f"and {num_values} values, more than {MAX_PAGE_BYTES / 1e6:.0f} MB or {MAX_PAGE_VALUES}; "
                            "write the file again with smaller groups of rows, such as row_group_size=100"
                        )
                    largest = max(largest, size)
    # A value of a page may be that of every row.
    return parquet, max(1, _BATCH_BYTES // largest)


def _iter_pages(file: BinaryIO, column: "ColumnChunkMetaData", address: str) -> Iterator[tuple[int, int]]:
    """Yield the uncompressed size in bytes and the number of values of each page of a column in a group of rows."""
    start = column.data_page_offset
    # Some writers give the offset 0, where no page can be; pyarrow ignores it, too.
    if column.has_dictionary_page and column.dictionary_page_offset:
        start = min(start, column.dictionary_page_offset)
    end = start + column.total_compressed_size
    while start < end:
        try:
            length, header = _read_header(file, start)
            sizes = header[_UNCOMPRESSED], header[_COMPRESSED]
            details = [header[field] for field in _DATA_PAGES if field in header]
            num_values = max((detail.get(_NUM_VALUES, 0) for detail in details), default=0)
            if min(*sizes, num_values) < 0:
                raise _PageError("a negative size")
        except (_PageError, KeyError, AttributeError, TypeError) as error:
            remedy = "download it or write it again"
            raise Hand1000Error(
                f"{address}: cannot be read as Parquet (page header at byte {start}: {error}); {remedy}"
            ) from error
        yield sizes[0], num_values
        start += length + sizes[1]


def _read_header(file: BinaryIO, start: int) -> tuple[int, dict[int, Any]]:
    """Return the length in bytes and the fields of the page header at `start`."""
    for size in _HEADER_BYTES:
        file.seek(start)
        data = file.read(size)
        try:
            reader = _CompactReader(data)
            return reader.position, reader.fields  # noqa: TRY300
        except IndexError:
            if len(data) < size:
                break
    raise _PageError("it is cut short")


class _CompactReader:
    """Reads one struct of Thrift's compact protocol; `fields` are its values by number, those of lists left out."""

    def __init__(self, data: bytes) -> None:
        self._data, self.position = data, 0
        self.fields = self._read_struct(0)

    def _read_byte(self) -> int:
        value = self._data[self.position]
        self.position += 1
        return value

    def _read_varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._read_byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
            if shift > 63:
                raise _PageError("a number of more than 64 bits")

    def _read_integer(self) -> int:
        value = self._read_varint()
        return (value >> 1) ^ -(value & 1)

    def _skip(self, size: int) -> None:
        if self.position + size > len(self._data):
            raise IndexError
        self.position += size

    def _read_struct(self, depth: int) -> dict[int, Any]:
        if depth > 8:
            raise _PageError("nested too deeply")
        fields: dict[int, Any] = {}
        number = 0
        while head := self._read_byte():
            number = number + (head >> 4) if head >> 4 else self._read_integer()
            fields[number] = self._read_value(head & 0x0F, depth)
        return fields

    def _read_value(self, kind: int, depth: int) -> Any:
        readers: dict[int, Callable[[], Any]] = {
            1: lambda: True,
            2: lambda: False,
            3: self._read_byte,
            4: self._read_integer,
            5: self._read_integer,
            6: self._read_integer,
            7: lambda: self._skip(struct.calcsize("d")),
            8: lambda: self._skip(self._read_varint()),
            12: lambda: self._read_struct(depth + 1),
        }
        if kind not in readers:
            raise _PageError(f"a field of type {kind}")
        return readers[kind]()
