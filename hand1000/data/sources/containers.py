"""Archives of a source as if they were folders: webdataset tars, and Parquet files with embedded images.

`shard.tar/0001.jpg` is a member of `shard.tar`. An archive is listed once and its members are copied out one by one, so
that the archive is never unpacked. Names are data: a member is addressed by its offset, never written under its name.
"""

import contextlib
import posixpath
import re
import tarfile
import threading
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from uuid import uuid4

from hand1000.core.errors import Hand1000Error, one_line
from hand1000.data.formats import image_suffixes
from hand1000.data.items import BAD_NAME, MEMBER, NO_FILE, OUTER_LINK, UNKNOWN_FILE, IssueLog
from hand1000.storage.scratch import process_scratch
from hand1000.storage.sources import Source

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

MAX_MEMBER_BYTES = 100_000_000
_PATH = re.compile(r"(?P<archive>.+?\.(?:tar|parquet))/(?P<member>.+)", re.IGNORECASE)
_SUFFIXES = frozenset({".tar", ".parquet"})
_BLOCK_ROWS = 1024
_NUM_IMAGES_AT_ONCE = 16
_BUFFER_BYTES = 1 << 20


def is_archive(name: str) -> bool:
    """Whether a file of this name is read as an archive; `metadata.parquet` describes images and has none."""
    path = PurePosixPath(name)
    return path.suffix.lower() in _SUFFIXES and path.stem != "metadata" and not path.name.startswith(".")


class _Archive(Protocol):
    def names(self) -> Iterator[str]: ...

    def version(self, member: str) -> list[int | str]: ...

    def read(self, member: str) -> bytes: ...

    def rows(self) -> Iterator[tuple[str, dict[str, Any]]]: ...


class ArchiveSource:
    """A `Source` in which archives are folders too. `issues` receives the members that are not used."""

    def __init__(self, source: Source, issues: IssueLog) -> None:
        self.root, self.concurrency = source.root, source.concurrency
        self._source, self._issues = source, issues
        self._archives: dict[str, _Archive] = {}
        self._listed: set[str] = set()
        self._lock = threading.Lock()
        self._copies = contextlib.ExitStack()  # Copies of archives on S3, which last as long as this object.

    def list_folders(self, parent: str = "") -> list[str]:
        """See `Source`; archives are not listed, nor are hidden folders and those that macOS adds to archives.

        A folder that is called like an archive is counted: its files would be taken for members.
        """
        names = []
        for name in self._source.list_folders(parent):
            if name.startswith(".") or name == "__MACOSX":
                continue
            if is_archive(name) or not _is_text(name):
                path = posixpath.join(parent, name)
                self._issues.count(UNKNOWN_FILE if is_archive(name) else BAD_NAME, f"{path}/")
            else:
                names.append(name)
        return names

    def list_files(self, folder: str) -> Iterator[str]:
        """See `Source`; the files of an archive are its members."""
        if not is_archive(folder):
            if folder not in self._listed:
                self._listed.add(folder)
                for name, is_outer in self._source.list_links(folder):
                    self._issues.count(OUTER_LINK if is_outer else NO_FILE, name)
            for name in self._source.list_files(folder):
                if _is_text(name):
                    yield name
                else:
                    self._issues.count(BAD_NAME, name)
            return
        for name in self._open(folder).names():
            yield f"{folder}/{name}"

    def list_links(self, folder: str) -> Iterator[tuple[str, bool]]:
        """See `Source`."""
        return self._source.list_links(folder)

    def list_rows(self, archive: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the columns beside the image of each member of a Parquet file; of a tar there are none."""
        for name, row in self._open(archive).rows():
            yield f"{archive}/{name}", row

    def file_version(self, name: str) -> list[int | str]:
        """See `Source`; that of a member is that of its archive and its place in it."""
        if not (match := _PATH.fullmatch(name)):
            return self._source.file_version(name)
        return [*self._source.file_version(match["archive"]), *self._open(match["archive"]).version(match["member"])]

    @contextlib.contextmanager
    def local_path(self, name: str) -> Iterator[Path]:
        """See `Source`; a member is copied out and removed afterwards."""
        if not (match := _PATH.fullmatch(name)):
            with self._source.local_path(name) as path:
                yield path
            return
        path = self._scratch / f"{uuid4().hex}{PurePosixPath(name).suffix}"
        try:
            path.write_bytes(self._open(match["archive"]).read(match["member"]))
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _open(self, archive: str) -> _Archive:
        with self._lock:
            if archive not in self._archives:
                path = self._copies.enter_context(self._source.local_path(archive))
                kind = _Tar if archive.lower().endswith(".tar") else _Parquet
                self._archives[archive] = kind(path, f"{self.root}/{archive}", archive, self._issues)
            return self._archives[archive]

    @cached_property
    def _scratch(self) -> Path:
        return process_scratch(None)


class _Extent(NamedTuple):
    offset: int
    size: int


class _Tar:
    """An uncompressed tar file; its members are found once, by their headers."""

    def __init__(self, path: Path, address: str, archive: str, issues: IssueLog) -> None:
        self._path = path
        self._members: dict[str, _Extent] = {}
        try:
            with tarfile.open(path, "r:") as tar:
                for info in tar:
                    name = info.name.removeprefix("./")
                    parts = PurePosixPath(name).parts
                    if info.isdir() or (parts and parts[-1].startswith(".")):
                        continue
                    is_safe = parts and ".." not in parts and not re.search(r"^/|[\\\0]", name) and _is_text(name)
                    is_plain = info.isreg() and not info.issparse() and info.size <= MAX_MEMBER_BYTES
                    if is_safe and is_plain and name not in self._members:
                        self._members[name] = _Extent(info.offset_data, info.size)
                    else:
                        issues.count(MEMBER, f"{archive}: {name!r:.100}")
                if fault := _fault_at_end(path, tar.offset):
                    raise tarfile.ReadError(fault)
        except (tarfile.TarError, EOFError) as error:
            remedy = "download it or pack it again as a plain tar, or unpack it"
            raise Hand1000Error(f"{address}: cannot be read as a tar ({one_line(error)}); {remedy}") from error

    def names(self) -> Iterator[str]:
        return iter(self._members)

    def rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        return iter(())

    def version(self, member: str) -> list[int | str]:
        return [*self._members[member]]

    def read(self, member: str) -> bytes:
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


class _Parquet:
    """A Parquet file with a column of embedded images, as the Hugging Face hub stores them: bytes and path."""

    def __init__(self, path: Path, address: str, archive: str, issues: IssueLog) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            self._file = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise Hand1000Error(f"{address}: cannot be read as Parquet ({one_line(error)}); write it again") from error
        self._path = path
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
        return iter(self._rows)

    def rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        if self._columns:
            yield from zip(self._rows, self._iter_rows(self._columns), strict=True)

    def version(self, member: str) -> list[int | str]:
        return [self._rows[member]]

    def read(self, member: str) -> bytes:
        row = self._rows[member]
        group = max(index for index, start in enumerate(self._starts) if start <= row)
        # A ParquetFile must not be read by two threads at once.
        index, columns = row - self._starts[group], [f"{self._image}.bytes"]
        # A group of rows may be larger than the memory, so that it is read piece by piece up to the row.
        for batch in self._reopen().iter_batches(_NUM_IMAGES_AT_ONCE, row_groups=[group], columns=columns):
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
        for batch in self._file.iter_batches(_BLOCK_ROWS, columns=columns):
            yield from batch.to_pylist()


def _is_text(name: str) -> bool:
    """Whether a name is Unicode; bytes that are not UTF-8 are surrogates in it."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _has_bytes(kind: Any) -> bool:
    return {"bytes", "path"} <= {kind.field(index).name for index in range(kind.num_fields)}
