"""Members of archives: webdataset tars, and Parquet files with embedded images. Nothing is unpacked."""

import contextlib
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from hand1000.core.errors import Hand1000Error, one_line
from hand1000.data.formats import image_suffixes
from hand1000.data.items import IssueLog
from hand1000.data.parquet import open_parquet
from hand1000.data.problem_kinds import MEMBER
from hand1000.storage.keys import find_key_fault

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

MAX_MEMBER_BYTES = 100_000_000
_BLOCK_ROWS = 1024
_NUM_IMAGES_AT_ONCE = 16
_BUFFER_BYTES = 1 << 20


class Archive(Protocol):
    """A file with members. Its name for errors is `address`, that for counts `archive`."""

    def names(self) -> Iterator[str]:
        """Return the names of the members."""

    def version(self, member: str) -> list[int | str]:
        """Return the place of a member."""

    def read(self, member: str) -> bytes:
        """Return the content of a member."""

    def rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the name of each member with the columns beside it."""


class _Extent(NamedTuple):
    offset: int
    size: int


class TarArchive:
    """An uncompressed tar file; its members are found once, by their headers."""

    def __init__(self, path: Path, address: str, archive: str, issues: IssueLog) -> None:
        """List the archive; what is not used of it goes to `issues`."""
        self._path = path
        self._members: dict[str, _Extent] = {}
        unused: Counter[str] = Counter()
        try:
            with tarfile.open(path, "r:") as tar:
                for info in tar:
                    name = info.name.removeprefix("./")
                    parts = PurePosixPath(name).parts
                    if info.isdir() or (parts and parts[-1].startswith(".")):
                        continue
                    is_safe = not find_key_fault(name)
                    is_plain = info.isreg() and not info.issparse() and info.size <= MAX_MEMBER_BYTES
                    if is_safe and is_plain and name not in self._members:
                        self._members[name] = _Extent(info.offset_data, info.size)
                    else:
                        unused[f"{archive}: {name!r:.100}"] += 1
                if fault := _fault_at_end(path, tar.offset):
                    raise tarfile.ReadError(fault)
        except (tarfile.TarError, EOFError) as error:
            remedy = "download it or pack it again as a plain tar, or unpack it"
            raise Hand1000Error(f"{address}: cannot be read as a tar ({one_line(error)}); {remedy}") from error
        for name, number in unused.items():
            issues.count(MEMBER, name, number)

    def names(self) -> Iterator[str]:
        """See `Archive`."""
        return iter(self._members)

    def rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """See `Archive`."""
        return iter(())

    def version(self, member: str) -> list[int | str]:
        """See `Archive`."""
        return [*self._members[member]]

    def read(self, member: str) -> bytes:
        """See `Archive`."""
        offset, size = self._members[member]
        with open(self._path, "rb") as file:
            file.seek(offset)
            return file.read(size)


def _fault_at_end(path: Path, end: int) -> str:
    """Return what is wrong where the last header was looked for, at `end`; tarfile takes any such place for the end."""
    with open(path, "rb") as file:
        file.seek(end)
        block = file.read(tarfile.BLOCKSIZE)
        if len(block) < tarfile.BLOCKSIZE:
            return "it is cut short"
        if any(block):
            return f"no header at byte {end}"
        while block := file.read(_BUFFER_BYTES):
            if any(block):
                return "more members after its end, as of archives that were joined"
    return ""


class ParquetArchive:
    """A Parquet file with a column of embedded images, as the Hugging Face hub stores them: bytes and path."""

    def __init__(self, path: Path, address: str, archive: str, issues: IssueLog) -> None:
        """List the archive; what is not used of it goes to `issues`."""
        import pyarrow as pa

        self._path, self._address = path, address
        with _translate_parquet_errors(address):
            self._file, self._max_rows = open_parquet(path, address)
        schema = self._file.schema_arrow
        images = [field.name for field in schema if pa.types.is_struct(field.type) and _has_bytes(field.type)]
        if not images:
            raise Hand1000Error(
                f"{address}: has no column of images with bytes and path; "
                "call a table about image files metadata.parquet"
            )
        self._image, self._columns = images[0], [name for name in schema.names if name not in images]
        for name in images[1:]:
            issues.count(MEMBER, f"{archive}: the column {name!r}, {self._file.metadata.num_rows} images")
        self._rows: dict[str, int] = {}
        for index, row in enumerate(self._iter_rows([f"{self._image}.path"])):
            path_text = str((row[self._image] or {}).get("path") or "")
            suffix = PurePosixPath(path_text).suffix.lower()
            # Pillow looks at the content, so that any image suffix will do for an image without a name.
            self._rows[f"{index:08d}{suffix if suffix in image_suffixes() else '.png'}"] = index
        sizes = [self._file.metadata.row_group(group).num_rows for group in range(self._file.num_row_groups)]
        self._starts = [sum(sizes[:group]) for group in range(len(sizes))]

    def names(self) -> Iterator[str]:
        """See `Archive`."""
        return iter(self._rows)

    def rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """See `Archive`."""
        if self._columns:
            yield from zip(self._rows, self._iter_rows(self._columns), strict=True)

    def version(self, member: str) -> list[int | str]:
        """See `Archive`."""
        return [self._rows[member]]

    def read(self, member: str) -> bytes:
        """See `Archive`."""
        row = self._rows[member]
        group = max(index for index, start in enumerate(self._starts) if start <= row)
        index, columns = row - self._starts[group], [f"{self._image}.bytes"]
        with _translate_parquet_errors(self._address):
            # A ParquetFile must not be read by two threads at once. A group of rows may be larger than the memory.
            for batch in self._reopen().iter_batches(
                min(_NUM_IMAGES_AT_ONCE, self._max_rows), row_groups=[group], columns=columns
            ):
                if index < batch.num_rows:
                    value = batch.column(0)[index].as_py()
                    data = value["bytes"] if isinstance(value, Mapping) else value
                    return data if data and len(data) <= MAX_MEMBER_BYTES else b""  # The reader reports an empty file.
                index -= batch.num_rows
        return b""

    def _reopen(self) -> "ParquetFile":
        import pyarrow.parquet as pq

        return pq.ParquetFile(self._path, metadata=self._file.metadata, buffer_size=_BUFFER_BYTES)

    def _iter_rows(self, columns: list[str]) -> Iterator[dict[str, Any]]:
        with _translate_parquet_errors(self._address):
            for batch in self._file.iter_batches(min(_BLOCK_ROWS, self._max_rows), columns=columns):
                yield from batch.to_pylist()


@contextlib.contextmanager
def _translate_parquet_errors(address: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        remedy = "download it or write it again"
        raise Hand1000Error(f"{address}: cannot be read as Parquet ({one_line(error)}); {remedy}") from error


def _has_bytes(kind: Any) -> bool:
    return {"bytes", "path"} <= {kind.field(index).name for index in range(kind.num_fields)}
