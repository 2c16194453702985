"""Whether a source of pictures is fit to be trained on, told before anything is trained."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from pydantic import BaseModel, ConfigDict

from hand1000.core.errors import Hand1000Error
from hand1000.data.crop import UnreadableImage, load_square
from hand1000.data.items import IssueLog, SkippedImage, SourceImage
from hand1000.data.selection import read_source
from hand1000.gestures import PHRASES
from hand1000.storage.sources import Source

_SIDE = 64  # Enough to see that a picture decodes; a JPEG is decoded at a reduced scale.
_PART = 256


class SourceReport(BaseModel):
    """What a source holds of one gesture; `divided` is whether it says which pictures are for the test."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gesture: str
    pictures: int
    people: int
    labelled: int
    captioned: int
    divided: bool
    unusable: tuple[SkippedImage, ...]
    warnings: tuple[str, ...]


def list_gestures(source: Source) -> list[str]:
    """The gestures of which the source has a folder.

    Raises:
        Hand1000Error: it has none, as where pictures of one gesture lie in the source itself.
    """
    found = [folder for folder in source.list_folders() if folder in PHRASES]
    if not found:
        raise Hand1000Error(f"{source.root}: no folder has the name of a gesture; name it with --gesture")
    return found


def check_source(source: Source, gesture: str, progress: Callable[[int], None]) -> SourceReport:
    """Read and decode every picture of `gesture`.

    Args:
        source: `hand1000.storage.sources.open_source`.
        gesture: HaGRID's name.
        progress: called with the pictures done.

    Raises:
        Hand1000Error: unknown gesture, nothing there of it, or metadata that cannot be used at all.
    """
    problems = IssueLog(source.root, quiet=True)
    train, test = read_source(source, gesture, problems)
    people: set[str] = set()
    counts = {"pictures": 0, "labelled": 0, "captioned": 0}
    with ThreadPoolExecutor(source.concurrency) as pool:
        for items in (train, test or ()):
            stream = iter(items)
            while part := list(islice(stream, _PART)):
                for item, reason in zip(part, pool.map(lambda item: _fault(source, item), part), strict=True):
                    counts["pictures"] += 1
                    counts["labelled"] += item.bbox is not None
                    counts["captioned"] += item.caption is not None
                    people.add(item.user_id)
                    if reason:
                        problems.pass_over(gesture, item.file, reason)
                progress(counts["pictures"])
    return SourceReport(
        gesture=gesture,
        people=len(people),
        divided=test is not None,
        unusable=tuple(problems.unusable),
        warnings=tuple(problems.warnings),
        **counts,
    )


def report_lines(reports: list[SourceReport], shown: int) -> Iterator[str]:
    """A table of the gestures, then what is wrong, at most `shown` pictures of each."""
    names = ("pictures", "people", "labelled", "captioned", "divided", "unusable")
    width = max(len(report.gesture) for report in reports) + 2
    yield f"{'gesture':{width}}" + "".join(f"{name:>11}" for name in names)
    for report in reports:
        values = [report.pictures, report.people, report.labelled, report.captioned]
        cells = [f"{value:,}" for value in values] + ["yes" if report.divided else "no", f"{len(report.unusable):,}"]
        yield f"{report.gesture:{width}}" + "".join(f"{cell:>11}" for cell in cells)
    for report in reports:
        yield from (f"warning: {warning}" for warning in report.warnings)
        yield from (f"unusable: {one.file}: {one.reason}" for one in report.unusable[:shown])
        if len(report.unusable) > shown:
            yield f"unusable: and {len(report.unusable) - shown} more of {report.gesture}"


def _fault(source: Source, item: SourceImage) -> str:
    try:
        with source.local_path(item.file) as path:
            load_square(path, _SIDE, item.bbox)
    except UnreadableImage as error:
        return error.reason
    return ""
