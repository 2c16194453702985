"""All that the lines of a source say of one image, merged into one `SourceImage`; what contradicts is counted."""

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from hand1000.core.errors import Hand1000Error
from hand1000.data import problem_kinds
from hand1000.data.boxes import UnusableBoxError, largest_box, parse_box
from hand1000.data.crop import UnreadableImageError, upright_size
from hand1000.data.imageset import BBox
from hand1000.data.items import IssueLog, SourceImage
from hand1000.data.sources.containers import ArchiveSource, is_archive
from hand1000.data.sources.folders import gesture_of_folder
from hand1000.data.sources.rows import METADATA_NAMES, Row
from hand1000.gestures import NO_GESTURE, PHRASES

BBoxFormat = Literal["relative", "pixels"]


@dataclass(frozen=True)
class Merger:
    """Makes the images of one gesture from the lines about them.

    Attributes:
        source: The source.
        gesture: HaGRID's name of the gesture; "" takes images of every gesture and of an unknown one.
        issues: Receives what cannot be used.
        single_gesture: Whether images without a known gesture count as images of `gesture`.
        bbox_format: What the numbers of boxes are.
    """

    source: ArchiveSource
    gesture: str
    issues: IssueLog
    single_gesture: bool
    bbox_format: BBoxFormat

    def merge(self, file: str, key: str, rows: Sequence[Row]) -> SourceImage | None:
        """Return the image, without a person if no line names one; None if it is not used or shows another gesture.

        Raises:
            Hand1000Error: Nothing says which gesture the image shows.
        """
        folder = posixpath.dirname(file)
        gestures = {row.gesture for row in rows if row.gesture} or {gesture_of_folder(folder)} - {""}
        if gestures and self.gesture and self.gesture not in gestures:
            if unknown := sorted(gestures - {*PHRASES, NO_GESTURE}):
                self.issues.count(problem_kinds.UNKNOWN_GESTURE, f"{file}: {unknown[0]!r:.60}")
            return None
        self.issues.num_images += 1
        origins = ", ".join(row.origin for row in rows)
        people = {row.user_id for row in rows if row.user_id}
        for kind, is_at_fault in (
            (problem_kinds.TWO_GESTURES, len(gestures) > 1),
            (problem_kinds.TWO_PEOPLE, len(people) > 1),
            (problem_kinds.BAD_PERSON, any(row.faults for row in rows)),
        ):
            if is_at_fault:
                self.issues.count(kind, f"{file}: {origins}")
                self.issues.skip(self.gesture, file, kind)
                return None
        if not gestures and not self.single_gesture:
            raise Hand1000Error(
                f"{self.source.root}/{file}: its gesture is unknown; put the images of several gestures into folders "
                "of their names, or give each image its `gesture` in a metadata file"
            )
        captions = tuple(dict.fromkeys(caption for row in rows for caption in row.captions))
        captioned = next((row for row in rows if row.captions), None)
        return SourceImage(
            key=key,
            file=file,
            gesture=self.gesture or next(iter(gestures), ""),
            user_id=next(iter(people), ""),
            bbox=self._merge_boxes(file, rows),
            hands=max((len(row.boxes) for row in rows if row.is_list), default=0),
            caption=captions[0] if captions else None,
            captions=captions if len(captions) > 1 else (),
            captioned_by=(captioned.captioner or describe_origin(captioned)) if captioned else "",
            provenance="; ".join(filter(None, (file, origins))),
        )

    def _merge_boxes(self, file: str, rows: Sequence[Row]) -> BBox | None:
        boxes = []
        for row in rows:
            usable = []
            for number, value in enumerate(_gesture_boxes(row, self.gesture), start=1):
                try:
                    usable.append(parse_box(value, self._size(file)))
                except UnusableBoxError as error:
                    self.issues.count(problem_kinds.BAD_BOX, f"{file}: {row.origin}: box {number}: {error}")
                except UnreadableImageError as error:
                    self.issues.count(problem_kinds.BAD_BOX, f"{file}: {row.origin}: box {number}: {error.reason}")
            if (box := largest_box(usable)) is not None:
                boxes.append(box)
        if len(set(boxes)) > 1:
            self.issues.count(problem_kinds.TWO_BOXES, f"{file}: {', '.join(row.origin for row in rows)}")
            return None
        return boxes[0] if boxes else None

    def _size(self, file: str) -> tuple[int, int] | None:
        if self.bbox_format == "relative":
            return None
        with self.source.local_path(file) as path:
            return upright_size(path)


def describe_origin(row: Row) -> str:
    """Return the kind of the file that a line is in: `metadata.csv`, or `.txt files`."""
    file = PurePosixPath(row.origin.partition(": ")[0])
    return file.name if file.name in METADATA_NAMES or is_archive(file.name) else f"{file.suffix} files"


def _gesture_boxes(row: Row, gesture: str) -> list[object]:
    """Return the boxes of hands that make the gesture, or of which no label says what they do."""
    labelled = [box for box, label in row.boxes if label == gesture]
    return labelled or [box for box, label in row.boxes if label not in PHRASES and label != NO_GESTURE]
