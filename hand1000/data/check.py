"""Check of a source: whether every image decodes and what its labels hold, before anything is trained on it."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from pydantic import BaseModel, ConfigDict

from hand1000.core.errors import Hand1000Error
from hand1000.core.progress import ProgressCallback
from hand1000.core.tables import Table
from hand1000.data.crop import UnreadableImageError, load_square
from hand1000.data.items import IssueLog, SkippedImage, SourceImage
from hand1000.data.selection import read_source
from hand1000.gestures import PHRASES
from hand1000.storage.sources import Source

_RESOLUTION = 64  # Enough to see that an image decodes; a JPEG decodes at a reduced scale.
_CHUNK_SIZE = 256


class SourceReport(BaseModel):
    """What a source has of one gesture; `has_split` is whether it names the test images itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gesture: str
    images: int
    people: int
    labelled: int
    captioned: int
    has_split: bool
    unusable: tuple[SkippedImage, ...]
    warnings: tuple[str, ...]


def list_gestures(source: Source) -> list[str]:
    """Return the gestures of which the source has a folder.

    Raises:
        Hand1000Error: There is none, as in a source that holds the images of one gesture directly.
    """
    gestures = [folder for folder in source.list_folders() if folder in PHRASES]
    if not gestures:
        raise Hand1000Error(f"{source.root}: no folder has the name of a gesture; name it with --gesture")
    return gestures


def check_source(source: Source, gesture: str, on_progress: ProgressCallback) -> SourceReport:
    """Read and decode every image of `gesture`; `on_progress` gets 0 as the total, which is unknown.

    Raises:
        Hand1000Error: The gesture is unknown, the source has no image of it, or its metadata cannot be used at all.
    """
    issues = IssueLog(source.root, quiet=True)
    train, test = read_source(source, gesture, issues)
    people: set[str] = set()
    counts = Counter(images=0, labelled=0, captioned=0)
    with ThreadPoolExecutor(source.concurrency) as pool:
        for items in (train, test or ()):
            stream = iter(items)
            while chunk := list(islice(stream, _CHUNK_SIZE)):
                for item, fault in zip(chunk, pool.map(lambda item: _find_fault(source, item), chunk), strict=True):
                    counts.update(images=1, labelled=item.bbox is not None, captioned=item.caption is not None)
                    people.add(item.user_id)
                    if fault:
                        issues.skip(gesture, item.file, fault)
                on_progress(counts["images"], 0)
    return SourceReport(
        gesture=gesture,
        people=len(people),
        has_split=test is not None,
        unusable=tuple(issues.unusable),
        warnings=tuple(issues.warnings),
        **counts,
    )


def report_lines(reports: list[SourceReport], max_listed: int) -> Iterator[str]:
    """Yield a table of the gestures, then the faults, with at most `max_listed` images per gesture."""
    header = ("gesture", "images", "people", "labelled", "captioned", "split", "unusable")
    rows = []
    for report in reports:
        counts = (report.images, report.people, report.labelled, report.captioned)
        split = "yes" if report.has_split else "no"
        rows.append([report.gesture, *(f"{count:,}" for count in counts), split, f"{len(report.unusable):,}"])
    yield from Table(header, rows, numeric=range(1, len(header))).text().splitlines()
    for report in reports:
        yield from (f"warning: {warning}" for warning in report.warnings)
        yield from (f"unusable: {skipped.file}: {skipped.reason}" for skipped in report.unusable[:max_listed])
        if len(report.unusable) > max_listed:
            yield f"unusable: and {len(report.unusable) - max_listed} more of {report.gesture}"


def _find_fault(source: Source, item: SourceImage) -> str:
    try:
        with source.local_path(item.file) as path:
            load_square(path, _RESOLUTION, item.bbox)
    except UnreadableImageError as error:
        return error.reason
    return ""
