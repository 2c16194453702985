"""Files beside images: `<name>.txt` and `<name>.caption` with one caption per line, `<name>.json` with named values."""

import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from hand1000.core.documents import load_json
from hand1000.data import problem_kinds
from hand1000.data.formats import is_image
from hand1000.data.items import IssueLog
from hand1000.data.sources.containers import ArchiveSource, is_archive
from hand1000.data.sources.folders import is_beside
from hand1000.data.sources.rows import METADATA_NAMES, Row, parse_row
from hand1000.storage.sources import Source

_MAX_BYTES = 1 << 20

T = TypeVar("T")


def read_files_beside(
    source: ArchiveSource, files: Mapping[str, Sequence[str]], images: Sequence[str], issues: IssueLog
) -> list[Row]:
    """Return what the files beside `images` say; `files` are those of each folder, in order."""
    by_stem: dict[tuple[str, str], list[str]] = {}
    for image in images:
        by_stem.setdefault(_stem(image), []).append(image)
    pairs = []
    for folder, names in files.items():
        for file in names:
            if is_image(file) or posixpath.basename(file) in METADATA_NAMES:
                continue
            if is_beside(file) and _stem(file) in by_stem:
                pairs.append((file, by_stem[_stem(file)]))
            elif is_archive(folder):
                issues.count(problem_kinds.UNKNOWN_FILE, file)
    columns: set[str] = set()
    texts = map_files(source, lambda file: _read(source, file), [file for file, _ in pairs])
    return [
        _parse(file, image, text, issues, columns)
        for (file, targets), text in zip(pairs, texts, strict=True)
        for image in targets
    ]


def map_files(source: Source, function: Callable[[str], T], names: Sequence[str]) -> Iterator[T]:
    """Yield the results of `function` for files of `source`, of which several are fetched at a time."""
    with ThreadPoolExecutor(source.concurrency) as pool:
        yield from pool.map(function, names)


def _stem(file: str) -> tuple[str, str]:
    """Return folder and name without suffix; a webdataset's key ends at the first dot."""
    folder, name = posixpath.split(file)
    is_member = any(map(is_archive, folder.split("/")))
    return folder, name.partition(".")[0] if is_member else posixpath.splitext(name)[0]


def _read(source: ArchiveSource, file: str) -> bytes:
    with source.local_path(file) as path, open(path, "rb") as stream:
        return stream.read(_MAX_BYTES + 1)


def _parse(file: str, image: str, data: bytes, issues: IssueLog, columns: set[str]) -> Row:
    is_json = file.lower().endswith(".json")
    try:
        if len(data) > _MAX_BYTES:
            raise ValueError("too long for a caption")
        text = data.decode("utf-8-sig")
        if not is_json:
            lines = (line.strip() for line in text.splitlines())
            return Row(image, file, tuple(dict.fromkeys(filter(None, lines))))
        values = load_json(text)
        if isinstance(values, dict):
            return parse_row(values, image, file, issues, columns)
    except ValueError:
        pass
    issues.count(problem_kinds.BAD_LINE if is_json else problem_kinds.BAD_CAPTION, file)
    return Row(image, file, faults=("user_id",) if is_json else ())
