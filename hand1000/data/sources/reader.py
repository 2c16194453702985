"""The one reader of sources: it finds out which layout a source has, and returns its images with their split."""

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass

from hand1000.data import problem_kinds
from hand1000.data.items import IssueLog, SourceImage
from hand1000.data.sources.beside import read_files_beside
from hand1000.data.sources.containers import ArchiveSource, is_archive
from hand1000.data.sources.folders import count_unread_files, gesture_of_folder, has_images
from hand1000.data.sources.hagrid import AnnotatedImages, Captions, read_hagrid
from hand1000.data.sources.hagrid_layout import HagridLayout
from hand1000.data.sources.image_folder import read_image_folders, read_lines
from hand1000.data.sources.merge import BBoxFormat, Merger, describe_origin
from hand1000.data.sources.rows import group_rows
from hand1000.gestures import PHRASES, gesture_phrase
from hand1000.storage.sources import Source

VALIDATION_FOLDERS = ("val", "valid", "validation", "dev")
"""Folders of images that are trained on if there is a folder `test`, and that are the test images otherwise."""

_SPLIT = re.compile(r"(train|test|val|valid|validation|dev)(?![a-z])", re.IGNORECASE)
_ARCHIVE_FOLDERS = ("", "data")


@dataclass(frozen=True)
class _Split:
    """Folders and archives of one side of a split."""

    folders: tuple[str, ...] = ()
    archives: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        """Folders and archives."""
        return self.folders + self.archives


class ImageReader:
    """Reads the images of a source and what the source says of them.

    Args:
        source: The source.
        issues: Receives what cannot be used.
        bbox_format: What the numbers of boxes in metadata files are; HaGRID's are always relative to the image.
        single_gesture: Whether images without a known gesture count as images of the requested one.

    Attributes:
        source: The source, in which archives are folders too: the files of all images are names in it.
    """

    def __init__(
        self, source: Source, issues: IssueLog, *, bbox_format: BBoxFormat = "relative", single_gesture: bool = True
    ) -> None:
        self.source = ArchiveSource(source, issues)
        self._issues, self._bbox_format, self._single_gesture = issues, bbox_format, single_gesture

    def read(self, gesture: str) -> tuple[Iterable[SourceImage], Iterable[SourceImage] | None]:
        """Return the training images of `gesture` and its test images, or None where the source has no split.

        The caller reads each iterable once, the first one first, and the log of issues is complete afterwards.

        Raises:
            Hand1000Error: The gesture is unknown, the source has no images of it, or a metadata file is malformed.
        """
        gesture_phrase(gesture)
        if (layout := HagridLayout.find(self.source)) is not None:
            return read_hagrid(self.source, layout, gesture, self._issues, self._read_captions)
        merger = Merger(self.source, gesture, self._issues, self._single_gesture, self._bbox_format)
        if (splits := self._find_splits()) is not None:
            train, test = splits
            return (
                read_image_folders(merger, train.folders, train.archives, test.parts),
                read_image_folders(merger, test.folders, test.archives, train.parts),
            )
        return read_image_folders(merger, [self._find_base(gesture)]), None

    def read_all(self, gesture: str = "") -> list[SourceImage]:
        """Return all images, of both sides of a split; "" takes those of every gesture and of an unknown one.

        Raises:
            Hand1000Error: As `read`.
        """
        layout = HagridLayout.find(self.source)
        if gesture or layout:
            gestures = [gesture] if gesture or not layout else sorted(layout.list_gestures(self.source))
            return [item for name in gestures for items in self.read(name) for item in items or ()]
        merger = Merger(self.source, "", self._issues, True, self._bbox_format)
        train, test = self._find_splits() or (_Split((self._find_base(""),)), _Split())
        sides = ((train, test), (test, train))
        return [
            item
            for side, other in sides
            if side.parts
            for item in read_image_folders(merger, side.folders, side.archives, other.parts)
        ]

    def list_gestures(self) -> list[str]:
        """Return the gestures of which a folder has the name."""
        layout = HagridLayout.find(self.source)
        parents = ["", layout.prefix] if layout else ["", "train", *VALIDATION_FOLDERS, "test"]
        folders = (name for parent in parents for name in self.source.list_folders(parent))
        names = {gesture_of_folder(name) for name in folders}
        if layout:
            names |= layout.list_gestures(self.source)
        return sorted(names & set(PHRASES))

    def _find_splits(self) -> tuple[_Split, _Split] | None:
        folders = self.source.list_folders()
        validation = tuple(name for name in VALIDATION_FOLDERS if name in folders)
        if "train" in folders and ("test" in folders or validation):
            test = ("test",) if "test" in folders else validation
            train = ("train", *(validation if "test" in folders else ()))
            for name in folders:
                if name not in (*train, *test) and has_images(self.source, name):
                    self._issues.count(problem_kinds.OTHER_FOLDER, f"{name}/")
            count_unread_files(self.source, [""], [], self._issues)
            return _Split(train), _Split(test)
        archives: dict[str, list[str]] = {"train": [], "test": [], "validation": [], "": []}
        for folder in _ARCHIVE_FOLDERS:
            for file in sorted(filter(is_archive, self.source.list_files(folder))):
                match = _SPLIT.match(posixpath.basename(file))
                name = match[1].lower() if match else ""
                archives[name if name in archives else "validation"].append(file)
        if archives[""] or not archives["train"] or not (archives["test"] or archives["validation"]):
            return None
        validation_of = "train" if archives["test"] else "test"
        archives[validation_of] += archives["validation"]
        count_unread_files(self.source, _ARCHIVE_FOLDERS, [*archives["train"], *archives["test"]], self._issues)
        return _Split(archives=tuple(archives["train"])), _Split(archives=tuple(archives["test"]))

    def _find_base(self, gesture: str) -> str:
        """Return the folder that the images are in or below: the source, or its only folder if it has no images."""
        folders = self.source.list_folders()
        if len(folders) != 1 or gesture_of_folder(folders[0]) or has_images(self.source, ""):
            return ""
        below = self.source.list_folders(folders[0])
        return folders[0] if below or has_images(self.source, folders[0]) else ""

    def _read_captions(self, images: AnnotatedImages) -> Captions:
        """Return the captions beside HaGRID's images; count other facts there, and files that nothing reads."""
        rows = read_lines(self.source, ["", *images.folders_with_others], self._issues)
        if not rows and not images.folders_with_others:
            return {}
        files = {folder: sorted(self.source.list_files(folder)) for folder in images.folders_with_others}
        count_unread_files(self.source, files, files, self._issues)
        present = images.files()
        rows += read_files_beside(self.source, files, sorted(present), self._issues)
        captions: dict[str, tuple[tuple[str, ...], str]] = {}
        for file, lines in group_rows(rows).items():
            if file not in present:
                folder = posixpath.dirname(file)
                if folder in images.folders or not has_images(self.source, folder):
                    for row in lines:
                        self._issues.count(problem_kinds.NO_IMAGE, f"{row.origin}: {file}")
                continue
            for row in lines:
                if row.user_id or row.boxes or row.gesture:
                    self._issues.count(problem_kinds.BESIDE_ANNOTATIONS, row.origin)
            if texts := tuple(dict.fromkeys(caption for row in lines for caption in row.captions)):
                captions[file] = texts, describe_origin(next(row for row in lines if row.captions))
        return captions
