"""Archives of a source as if they were folders: webdataset tars, and Parquet files with embedded images.

`shard.tar/0001.jpg` is a member of `shard.tar`. An archive is listed once and its members are copied out one by one, so
that the archive is never unpacked. Names are data: a member is addressed by its offset, never written under its name.
"""

import contextlib
import posixpath
import re
import threading
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

from hand1000.data.items import IssueLog
from hand1000.data.problem_kinds import BAD_NAME, NO_FILE, OUTER_LINK, UNKNOWN_FILE
from hand1000.data.sources.archives import Archive, ParquetArchive, TarArchive
from hand1000.storage.keys import find_key_fault
from hand1000.storage.scratch import process_scratch
from hand1000.storage.sources import Source

_PATH = re.compile(r"(?P<archive>.+?\.(?:tar|parquet))/(?P<member>.+)", re.IGNORECASE)
_SUFFIXES = frozenset({".tar", ".parquet"})


def is_archive(name: str) -> bool:
    """Whether a file of this name is read as an archive; `metadata.parquet` describes images and has none."""
    path = PurePosixPath(name)
    return path.suffix.lower() in _SUFFIXES and path.stem != "metadata" and not path.name.startswith(".")


class ArchiveSource:
    """A `Source` in which archives are folders too. `issues` receives the members that are not used."""

    def __init__(self, source: Source, issues: IssueLog) -> None:
        self.root, self.concurrency = source.root, source.concurrency
        self._source, self._issues = source, issues
        self._archives: dict[str, Archive] = {}
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
            if is_archive(name) or find_key_fault(name):
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
                if find_key_fault(name):
                    self._issues.count(BAD_NAME, name)
                else:
                    yield name
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

    def _open(self, archive: str) -> Archive:
        with self._lock:
            if archive not in self._archives:
                path = self._copies.enter_context(self._source.local_path(archive))
                kind = TarArchive if archive.lower().endswith(".tar") else ParquetArchive
                self._archives[archive] = kind(path, f"{self.root}/{archive}", archive, self._issues)
            return self._archives[archive]

    @cached_property
    def _scratch(self) -> Path:
        return process_scratch(None)
