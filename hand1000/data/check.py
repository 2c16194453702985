"""Check of a source: what it has of each gesture and what of it cannot be used, before anything is trained on it."""

import io
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from hand1000.core.errors import Hand1000Error, escape_unprintable
from hand1000.core.progress import ProgressCallback, noop_callback
from hand1000.data.check_report import DuplicateGroup, SourceReport, Thumbnail
from hand1000.data.crop import UnreadableImageError, load_square
from hand1000.data.duplicates import Fingerprint, find_duplicates, fingerprint
from hand1000.data.imageset import BBox
from hand1000.data.items import MAX_LISTED, IssueLog, SkippedImage, SourceImage
from hand1000.data.problem_kinds import BESIDE_PIXELS, IN_BOTH_SPLITS
from hand1000.data.sources.containers import ArchiveSource
from hand1000.data.sources.merge import BBoxFormat
from hand1000.data.sources.reader import ImageReader
from hand1000.storage.sources import Source

NUM_THUMBNAILS = 24
"""Number of images of a gesture that the page shows, and of its groups of duplicates."""

_RESOLUTION = 64  # Enough for the perceptual hash; a JPEG decodes at a reduced scale.
_THUMBNAIL_SIDE = 96
_CHUNK_SIZE = 256


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
        """Decode the images of one side of the split and count what they have."""
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
        """Return the groups of images that are the same."""
        groups = []
        for indices in find_duplicates([image.fingerprint for image in self.images]):
            members = [self.images[index] for index in indices]
            sides = {member.side if has_split else member.person for member in members}
            groups.append(DuplicateGroup(tuple(member.file for member in members), len(sides) > 1))
        return groups

    def draw_group(self, group: DuplicateGroup) -> tuple[Thumbnail, ...]:
        """Return thumbnails of the first images of a group."""
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
