"""Reader of image files with what is known of them: imagefolders, kohya folders, webdataset tars, embedded images.

Facts about an image come from lines of metadata files in its folder or in one above, from `<name>.json`, `<name>.txt`
and `<name>.caption` beside it, and from the name of its folder.
"""

import itertools
import posixpath
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from msgspec.structs import replace

from hand1000.core.errors import Hand1000Error
from hand1000.data import problem_kinds
from hand1000.data.formats import is_image
from hand1000.data.items import MAX_LISTED, IssueLog, SourceImage, safe_key
from hand1000.data.sources.beside import map_files, read_files_beside
from hand1000.data.sources.containers import ArchiveSource, is_archive
from hand1000.data.sources.folders import find_folders, find_repeats, gesture_of_folder, has_images
from hand1000.data.sources.merge import Merger
from hand1000.data.sources.rows import METADATA_NAMES, Row, group_rows, parse_row, read_metadata
from hand1000.storage.digests import digest_file


def read_image_folders(
    merger: Merger, bases: Sequence[str], archives: Sequence[str] = (), elsewhere: Sequence[str] = ()
) -> list[SourceImage]:
    """Read the images below each folder of `bases`, "" for the source itself, and in `archives`.

    Lines about files that are not there are counted, but those below `elsewhere`, which another call reads, are not.

    An image without `user_id` counts as a person, named by its content, so that copies are one person.

    Raises:
        Hand1000Error: A metadata file is malformed, there is no image of the gesture, or one without a gesture.
    """
    source, gesture, issues = merger.source, merger.gesture, merger.issues
    rows = read_lines(source, sorted({"", *map(posixpath.dirname, archives)}), issues)
    folders = list(archives)
    above = list(rows)
    for base in bases:
        beside = read_lines(source, [base], issues) if base else []
        named = [row for row in (*above, *beside) if _is_below(row.file, base)]
        found = find_folders(source, base, gesture, named, issues)
        inner = [folder for folder in found if folder not in ("", base) and not is_archive(folder)]
        rows += beside + read_lines(source, inner, issues)
        folders += found
    for archive in filter(is_archive, folders):
        rows += _read_columns(source, archive, issues)
    files = {folder: sorted(source.list_files(folder)) for folder in dict.fromkeys(folders)}
    images = [file for names in files.values() for file in names if is_image(file)]
    rows += read_files_beside(source, files, images, issues)
    lines = group_rows(rows)
    lost_people = _count_lines_without_image(lines, set(images), elsewhere, gesture, issues)
    for folder, repeats in find_repeats(files).items():
        if repeats != 1:
            issues.count(problem_kinds.REPEATS, f"{folder}: {repeats}")
    items = _merge_images(merger, images, lines)
    if lost_people and (nameless := [item.file for item in items if not item.user_id]):
        # Any of these images may be of one of these people, and so on the other side of the split.
        raise Hand1000Error(
            f"{source.root}: {lost_people[0]}: no such image, of {len(lost_people)} lines that name a person, while "
            f"{len(nameless)} images have no line that does, such as {nameless[0]}; correct file_name (with its folder)"
        )
    items = _name_people(merger, items)
    if not items and not issues.unusable:
        raise Hand1000Error(_describe_missing(merger, bases, lines))
    return items


def read_lines(source: ArchiveSource, folders: Iterable[str], issues: IssueLog) -> list[Row]:
    """Read the metadata files in `folders` themselves."""
    rows: list[Row] = []
    for folder in folders:
        for file in sorted(source.list_files(folder)):
            if PurePosixPath(file).name in METADATA_NAMES:
                rows += read_metadata(source, file, issues)
    return rows


def _read_columns(source: ArchiveSource, archive: str, issues: IssueLog) -> list[Row]:
    columns: set[str] = set()
    return [
        parse_row(values, name, f"{archive}: {posixpath.basename(name)}", issues, columns)
        for name, values in source.list_rows(archive)
    ]


def _merge_images(merger: Merger, images: Sequence[str], lines: Mapping[str, Sequence[Row]]) -> list[SourceImage]:
    stems = Counter(PurePosixPath(file).stem for file in images)
    names = Counter(PurePosixPath(file).name for file in images)
    items = []
    for file in images:
        path = PurePosixPath(file)
        # a.jpg and a.png are two images.
        key = path.stem if stems[path.stem] == 1 else path.name if names[path.name] == 1 else file
        if (item := merger.merge(file, safe_key(key), lines.get(file, ()))) is not None:
            items.append(item)
    return items


def _name_people(merger: Merger, items: Sequence[SourceImage]) -> list[SourceImage]:
    """Return the images with a person each; without one, the content names it."""
    nameless = [item.file for item in items if not item.user_id]
    if len(nameless) < len(items):
        for file in nameless:
            merger.issues.count(problem_kinds.NO_PERSON, file)
    digests = dict(zip(nameless, map_files(merger.source, lambda file: _digest(merger, file), nameless), strict=True))
    return [item if item.user_id else replace(item, user_id=digests[item.file]) for item in items]


def _digest(merger: Merger, file: str) -> str:
    with merger.source.local_path(file) as path:
        return digest_file(path)


def _count_lines_without_image(
    lines: Mapping[str, Sequence[Row]], images: set[str], elsewhere: Sequence[str], gesture: str, issues: IssueLog
) -> list[str]:
    """Count the lines that may be of `gesture` and have no image; return those that name a person."""
    lost = []
    for file, rows in lines.items():
        if file in images or any(_is_below(file, base) for base in elsewhere):
            continue
        for row in rows:
            if not gesture or (row.gesture or gesture_of_folder(posixpath.dirname(file)) or gesture) == gesture:
                issues.count(problem_kinds.NO_IMAGE, f"{row.origin}: {file}")
                lost += [f"{row.origin}: {file}"] if row.user_id else []
    return lost


def _describe_missing(merger: Merger, bases: Sequence[str], lines: Mapping[str, Sequence[Row]]) -> str:
    source, gesture = merger.source, merger.gesture
    present = {row.gesture for row in itertools.chain.from_iterable(lines.values()) if row.gesture}
    for base in bases:
        paths = [posixpath.join(base, name) for name in source.list_folders(base)]
        present |= {posixpath.basename(path) for path in paths if has_images(source, path)}
    name = f"{source.root}/{bases[0] if bases else ''}".rstrip("/")
    what = f"images of {gesture!r}" if gesture else "images"
    problems = "".join(f"; not read: {problem}" for problem in merger.issues.problems[:MAX_LISTED])
    if not present and problems:
        return f"{name}: no {what}{problems}"
    found = f"there are: {', '.join(sorted(present))}" if present else "it is empty; see docs/data.md for the layouts"
    return f"{name}: no {what}; {found}{problems}"


def _is_below(file: str, base: str) -> bool:
    return not base or file.startswith(f"{base}/")
