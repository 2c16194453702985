"""Check of a source: what it has of each gesture and what of it cannot be used, before anything is trained on it."""

import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from pydantic import BaseModel, ConfigDict

from hand1000.core.errors import Hand1000Error, escape_unprintable
from hand1000.core.progress import ProgressCallback, noop_callback
from hand1000.core.tables import Table
from hand1000.data.crop import UnreadableImageError, load_square
from hand1000.data.duplicates import Fingerprint, find_duplicates, fingerprint
from hand1000.data.imageset import BBox
from hand1000.data.items import BESIDE_PIXELS, IN_BOTH_SPLITS, MAX_LISTED, IssueLog, Problem, SkippedImage, SourceImage
from hand1000.data.prepare import require_usable
from hand1000.data.sources.containers import ArchiveSource
from hand1000.data.sources.merge import BBoxFormat
from hand1000.data.sources.reader import ImageReader
from hand1000.storage.sources import Source

NUM_THUMBNAILS = 24
"""Number of images of a gesture that the page shows, and of its groups of duplicates."""

_RESOLUTION = 64  # Enough for the perceptual hash; a JPEG decodes at a reduced scale.
_THUMBNAIL_SIDE = 96
_CHUNK_SIZE = 256
_UNUSABLE = "unusable image"


class Thumbnail(NamedTuple):
    """A small PNG file of an image with its labelled box, and what is known of it."""

    png: bytes
    text: str


@dataclass(frozen=True)
class DuplicateGroup:
    """Files of one image; `is_split` is whether they are on both sides of the split, or of several people."""

    files: tuple[str, ...]
    is_split: bool


class SourceReport(BaseModel):
    """What a source has of one gesture.

    Attributes:
        gesture: HaGRID's name of the gesture.
        images: Number of images that the source describes as one should.
        captioned: Number of captioned images by who wrote the captions.
        num_several: Number of images with several captions.
        labelled: Number of images with a box.
        people: Number of people; an image without a person counts as one.
        has_split: Whether the source names the test images itself.
        duplicates: Groups of images that are the same.
        num_read: Number of images and annotations that were read.
        malformed: Images that the source does not describe as one should.
        undecodable: Images that do not decode.
        warnings: Sentences about the source.
        problems: What else is not used.
        thumbnails: The first images.
        duplicate_thumbnails: The first images of the first groups of duplicates.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    gesture: str
    images: int
    captioned: dict[str, int]
    num_several: int
    labelled: int
    people: int
    has_split: bool
    duplicates: tuple[DuplicateGroup, ...]
    num_read: int
    malformed: tuple[SkippedImage, ...]
    undecodable: tuple[SkippedImage, ...]
    warnings: tuple[str, ...]
    problems: tuple[Problem, ...]
    thumbnails: tuple[Thumbnail, ...]
    duplicate_thumbnails: tuple[tuple[Thumbnail, ...], ...]

    @property
    def all_problems(self) -> list[Problem]:
        """The problems, those of single images included."""
        unusable = [*self.malformed, *self.undecodable]
        if not unusable:
            return list(self.problems)
        names = tuple(f"{skipped.file}: {skipped.reason}" for skipped in unusable[:MAX_LISTED])
        return [
            Problem(kind=_UNUSABLE, count=len(unusable), names=names, remedy="repair or remove them"),
            *self.problems,
        ]

    def require_usable(self, max_unusable: float) -> None:
        """Raise a `Hand1000Error` where a training would: with more unusable images than a share of `max_unusable`."""
        require_usable(self.malformed, self.num_read, max_unusable)
        require_usable(self.undecodable, self.images, max_unusable)


def list_gestures(source: Source) -> list[str]:
    """Return the gestures of which the source has a folder or annotations.

    Raises:
        Hand1000Error: There is none, as in a source that holds the images of one gesture directly.
    """
    gestures = ImageReader(source, IssueLog(source.root, quiet=True)).list_gestures()
    if not gestures:
        raise Hand1000Error(f"{source.root}: no folder has the name of a gesture; name it with --gesture")
    return gestures


def check_source(
    source: Source,
    gesture: str,
    on_progress: ProgressCallback = noop_callback,
    *,
    bbox_format: BBoxFormat = "relative",
    single_gesture: bool = True,
) -> SourceReport:
    """Read and decode every image of `gesture`; `on_progress` gets 0 as the total, which is unknown.

    Raises:
        Hand1000Error: The gesture is unknown, the source has no image of it, or its metadata cannot be used at all.
    """
    issues = IssueLog(source.root, quiet=True)
    reader = ImageReader(source, issues, bbox_format=bbox_format, single_gesture=single_gesture)
    train, test = reader.read(gesture)
    check = _Check(reader.source, issues)
    check.read(train, "train", on_progress)
    check.read(test or (), "test", on_progress)
    groups = check.find_duplicates(has_split=test is not None)
    return SourceReport(
        gesture=gesture,
        images=check.counts["images"],
        captioned=dict(check.captioned.most_common()),
        num_several=check.counts["several"],
        labelled=check.counts["labelled"],
        people=len(check.people),
        has_split=test is not None,
        duplicates=tuple(groups),
        num_read=issues.num_images,
        malformed=tuple(issues.unusable),
        undecodable=tuple(check.undecodable),
        warnings=tuple(issues.warnings),
        problems=issues.problems,
        thumbnails=tuple(check.thumbnails),
        duplicate_thumbnails=tuple(check.draw_group(group) for group in groups[:NUM_THUMBNAILS]),
    )


class _Decoded(NamedTuple):
    fingerprint: Fingerprint | None
    reason: str
    faults: list[str]


class _Image(NamedTuple):
    file: str
    side: str
    person: str
    fingerprint: Fingerprint


@dataclass
class _Check:
    """The counts of a check so far."""

    source: ArchiveSource
    issues: IssueLog
    counts: Counter[str] = field(default_factory=Counter)
    captioned: Counter[str] = field(default_factory=Counter)
    people: set[str] = field(default_factory=set)
    train_people: set[str] = field(default_factory=set)
    undecodable: list[SkippedImage] = field(default_factory=list)
    thumbnails: list[Thumbnail] = field(default_factory=list)
    images: list[_Image] = field(default_factory=list)

    def read(self, items: Iterable[SourceImage], side: str, on_progress: ProgressCallback) -> None:
        stream = iter(items)
        with ThreadPoolExecutor(self.source.concurrency) as pool:
            while chunk := list(islice(stream, _CHUNK_SIZE)):
                for item, decoded in zip(chunk, pool.map(self._decode, chunk), strict=True):
                    self.counts.update(images=1, labelled=item.bbox is not None, several=bool(item.captions))
                    if item.caption is not None:
                        self.captioned[item.captioned_by or "the source"] += 1
                    if side == "train":
                        self.train_people.add(item.user_id)
                    elif item.user_id in self.train_people:
                        self.issues.count(IN_BOTH_SPLITS, f"{item.file}: {item.user_id}")
                    self.people.add(item.user_id)
                    for fault in decoded.faults:
                        self.issues.count(BESIDE_PIXELS, f"{item.file}: {fault}")
                    if decoded.fingerprint is None:
                        name = escape_unprintable(f"{item.gesture}/{item.file.rpartition('/')[2]}")
                        self.undecodable.append(SkippedImage(file=name, reason=decoded.reason))
                        continue
                    self.images.append(_Image(item.file, side, item.user_id, decoded.fingerprint))
                    if len(self.thumbnails) < NUM_THUMBNAILS:
                        self.thumbnails.append(self._draw(item.file, item.bbox, item.caption or ""))
                on_progress(self.counts["images"], 0)

    def find_duplicates(self, has_split: bool) -> list[DuplicateGroup]:
        groups = []
        for indices in find_duplicates([image.fingerprint for image in self.images]):
            members = [self.images[index] for index in indices]
            sides = {member.side if has_split else member.person for member in members}
            groups.append(DuplicateGroup(tuple(member.file for member in members), len(sides) > 1))
        return groups

    def draw_group(self, group: DuplicateGroup) -> tuple[Thumbnail, ...]:
        return tuple(self._draw(file, None, "") for file in group.files[:MAX_LISTED])

    def _decode(self, item: SourceImage) -> _Decoded:
        faults: list[str] = []
        try:
            with self.source.local_path(item.file) as path:
                pixels, _ = load_square(path, _RESOLUTION, on_fault=faults.append)
        except UnreadableImageError as error:
            return _Decoded(None, error.reason, faults)
        return _Decoded(fingerprint(pixels), "", faults)

    def _draw(self, file: str, bbox: BBox | None, caption: str) -> Thumbnail:
        with self.source.local_path(file) as path:
            pixels, box = load_square(path, _THUMBNAIL_SIDE, bbox)
        return Thumbnail(_draw_box(pixels, box), f"{file}: {caption}" if caption else file)


def _draw_box(pixels: np.ndarray, box: BBox | None) -> bytes:
    image = Image.fromarray(pixels)
    if box is not None:
        x, y, width, height = (value * (_THUMBNAIL_SIDE - 1) for value in box)
        ImageDraw.Draw(image).rectangle((x, y, x + width, y + height), outline=(255, 0, 0))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def overview_table(reports: Sequence[SourceReport]) -> Table:
    """Return what the source has, one row per gesture."""
    header = ("gesture", "images", "captioned", "labelled", "people", "split", "duplicates", "across", "unusable")
    rows = []
    for report in reports:
        writers = ", ".join(f"{count:,} {name}" for name, count in report.captioned.items())
        captions = f"{writers}; {report.num_several:,} several" if report.num_several else writers or "0"
        copies = sum(len(group.files) - 1 for group in report.duplicates)
        across = sum(group.is_split for group in report.duplicates)
        unusable = len(report.malformed) + len(report.undecodable)
        numbers = (f"{number:,}" for number in (copies, across, unusable))
        split = "yes" if report.has_split else "no"
        counts = (f"{report.images:,}", captions, f"{report.labelled:,}", f"{report.people:,}", split)
        rows.append([report.gesture, *counts, *numbers])
    return Table(header, rows, numeric={1, 3, 4, 6, 7, 8})


def problems_table(report: SourceReport) -> Table:
    """Return what is not used, one row per kind, with the first names and the remedy."""
    rows = [
        (problem.kind, f"{problem.count:,}", "; ".join(problem.names), problem.remedy)
        for problem in report.all_problems
    ]
    return Table(("problem", "count", "the first", "remedy"), rows, numeric={1})


def report_lines(reports: Sequence[SourceReport]) -> Iterator[str]:
    """Yield the overview, then each gesture's duplicates and problems with their first names."""
    yield from overview_table(reports).text().splitlines()
    for report in reports:
        yield from (f"warning: {warning}" for warning in report.warnings)
        for group in report.duplicates[:MAX_LISTED]:
            across = " (across the split or of several people)" if group.is_split else ""
            yield escape_unprintable(f"duplicates{across}: {', '.join(group.files[:MAX_LISTED])}")
        for problem in report.all_problems:
            yield f"problem: {problem}"
