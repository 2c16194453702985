"""The folders of a source that have the images of a gesture, and the files that nothing reads."""

import posixpath
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import PurePosixPath

from hand1000.data import problem_kinds
from hand1000.data.formats import HEIF_SUFFIXES, is_image
from hand1000.data.items import IssueLog
from hand1000.data.sources.containers import ArchiveSource, is_archive
from hand1000.data.sources.rows import METADATA_NAMES, Row
from hand1000.gestures import PHRASES
from hand1000.storage.keys import find_key_fault

TEXT_SUFFIXES = (".txt", ".caption")
"""Suffixes of files beside images with one caption per line."""

# Files of published datasets and of repositories that say nothing about single images.
_OTHER_FILES = frozenset({"README.md", "LICENSE", "LICENSE.txt", "preparation.json", "quality.json", "captions.html"})
_KOHYA = re.compile(r"(\d+)_(.+)")


def find_folders(source: ArchiveSource, base: str, gesture: str, rows: Sequence[Row], issues: IssueLog) -> list[str]:
    """Return the folders and archives in `base` that have images of `gesture` ("": of any), and those that `rows` name.

    They are the folders that are named after the gesture; without one, `base` itself, or kohya's folders in it.
    """
    subfolders = [posixpath.join(base, name) for name in source.list_folders(base)]
    folders = [
        name for name in subfolders if (gesture_of_folder(name) == gesture or not gesture) and has_images(source, name)
    ]
    if not gesture and has_images(source, base):
        folders.append(base)
    if not folders and not has_images(source, base):
        repeated = [name for name in subfolders if _KOHYA.fullmatch(posixpath.basename(name))]
        folders = [name for name in repeated if not gesture_of_folder(name) and has_images(source, name)]
    elif not folders:
        folders = [base]
    for row in rows:
        folder = posixpath.dirname(row.file)
        if folder in folders or (gesture and (row.gesture or gesture_of_folder(folder)) not in ("", gesture)):
            continue
        if folder and find_key_fault(folder):  # Nothing outside the source is ever listed.
            continue
        if has_images(source, folder):
            folders.append(folder)
    archives = [file for folder in folders for file in source.list_files(folder) if is_archive(file)]
    count_unread_files(source, [base, *folders], folders, issues)
    _count_unread_folders(source, [base, *folders], folders, gesture, issues)
    return folders + sorted(archives)


def _count_unread_folders(
    source: ArchiveSource, parents: Sequence[str], read: Sequence[str], gesture: str, issues: IssueLog
) -> None:
    """Count the folders in `parents` that are neither read nor of another gesture than `gesture`."""
    for parent in dict.fromkeys(parents):
        for name in source.list_folders(parent):
            folder = posixpath.join(parent, name)
            is_read = any(other == folder or other.startswith(f"{folder}/") for other in read)
            if is_read or gesture_of_folder(folder) not in ("", gesture):
                continue
            if has_images(source, folder):
                issues.count(problem_kinds.OTHER_FOLDER, f"{folder}/")
            elif any(source.list_files(folder)) or source.list_folders(folder):
                issues.count(problem_kinds.UNKNOWN_FILE, f"{folder}/")


def count_unread_files(source: ArchiveSource, folders: Iterable[str], read: Collection[str], issues: IssueLog) -> None:
    """Count the files in `folders` that are neither images nor texts beside one; only those in `read` are read.

    `read` has folders, and archives that are read while others in their folder are not.
    """
    for folder in dict.fromkeys(folders):
        files = sorted(source.list_files(folder))
        stems = {posixpath.splitext(file)[0] for file in files if is_image(file)}
        for file in files:
            name = PurePosixPath(file).name
            if name in _OTHER_FILES or name in METADATA_NAMES:
                continue
            if is_image(file) or is_archive(file):
                if folder not in read and file not in read:
                    issues.count(problem_kinds.OTHER_FOLDER, file)
            elif PurePosixPath(file).suffix.lower() in HEIF_SUFFIXES:
                issues.count(problem_kinds.NEEDS_HEIF, file)
            elif posixpath.splitext(file)[0] not in stems or not is_beside(file):
                issues.count(problem_kinds.UNKNOWN_FILE, file)


def has_images(source: ArchiveSource, folder: str) -> bool:
    """Whether there are images or archives in `folder` itself."""
    return any(is_image(file) or is_archive(file) for file in source.list_files(folder))


def is_beside(file: str) -> bool:
    """Whether a file of this name is about the image of the same name."""
    return PurePosixPath(file).suffix.lower() in (*TEXT_SUFFIXES, ".json")


def gesture_of_folder(folder: str) -> str:
    """Return the gesture in the name of a folder, `four` or kohya's `10_four`, or ""."""
    name = posixpath.basename(folder)
    match = _KOHYA.fullmatch(name)
    gesture = match[2] if match else name
    return gesture if gesture in PHRASES else ""


def find_repeats(folders: Iterable[str]) -> dict[str, int]:
    """Return the kohya folders, `10_name`, with their numbers of repeats."""
    matches = {folder: _KOHYA.fullmatch(posixpath.basename(folder)) for folder in folders}
    return {folder: int(match[1]) for folder, match in matches.items() if match}
