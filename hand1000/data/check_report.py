"""What a source has of each gesture and what of it cannot be used, as a report, tables and lines."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from hand1000.core.errors import escape_unprintable
from hand1000.core.tables import Table
from hand1000.data.items import MAX_LISTED, Problem, SkippedImage
from hand1000.data.prepare import require_usable

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
