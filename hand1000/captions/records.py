"""Finished captions in a file: one JSON line per image, by file name."""

from collections.abc import Iterable
from pathlib import Path

from pydantic import Field

from hand1000.captions.rewrite import Completion
from hand1000.core.errors import Hand1000Error
from hand1000.storage.files import read_records, write_jsonl


class CaptionRecord(Completion):
    """The caption of one image and the text that completes it.

    Attributes:
        file_name: Name of the image file.
        caption: What the captioner wrote, without the gesture's phrase.
        captioner: Name of the captioner with its revision, or `dataset`.
    """

    file_name: str = Field(min_length=1)
    caption: str
    captioner: str


def write_caption_records(path: Path, records: Iterable[CaptionRecord]) -> None:
    """Write `records` as JSON Lines, sorted by file name."""
    ordered = sorted(records, key=lambda record: record.file_name)
    write_jsonl(path, ordered)


def read_caption_records(paths: Iterable[Path]) -> dict[str, CaptionRecord]:
    """Read the records of one captioner, in the files of its shards, by file name.

    Raises:
        Hand1000Error: A file is missing, a line is malformed, or an image has two lines; names file and line.
    """
    records: dict[str, CaptionRecord] = {}
    for path in paths:
        for number, record in read_records(path, CaptionRecord):
            if record.file_name in records:
                raise Hand1000Error(f"{path}: line {number}: {record.file_name} appears twice; remove one line")
            records[record.file_name] = record
    return records
