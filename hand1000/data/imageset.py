"""The image set: square PNG files and `metadata.jsonl`, the layout of a Hugging Face imagefolder."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

from hand1000.config.base import Fraction
from hand1000.core.errors import Hand1000Error
from hand1000.storage.digests import Sha256
from hand1000.storage.files import read_records, write_jsonl

METADATA = "metadata.jsonl"

NonEmpty = Annotated[str, Field(min_length=1)]
BBox = tuple[Fraction, Fraction, Fraction, Fraction]
"""x, y, width and height of a box relative to its image: 0 to 1, from the upper left corner."""

_OPTIONAL = ("text", "caption", "captions", "captioner", "seed", "attributes", "provenance")
"""Fields that a line leaves out when they are empty, because a column of nulls says nothing."""


class ImageRecord(BaseModel):
    """One image of a set; docs/architecture.md, "Data formats", describes the fields.

    `text` and `captioner` are empty until the captioning stage fills them in; `caption` is the one that came with the
    image until then, if there was one; of several it is the one that the seed drew, and `captions` are all of them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    file_name: NonEmpty
    text: str = ""
    caption: str = ""
    captioner: str = ""
    gesture: NonEmpty
    user_id: NonEmpty
    bbox: BBox | None = None
    source: Sha256
    seed: int | None = Field(default=None, ge=0)
    attributes: dict[str, JsonValue] | None = None
    captions: tuple[str, ...] | None = None
    provenance: str = ""

    @field_validator("file_name")
    @classmethod
    def _is_plain_name(cls, name: str) -> str:
        if "/" in name or "\\" in name or "\0" in name or name.startswith("."):
            raise ValueError("not the plain name of a file beside metadata.jsonl")
        return name


def read_image_set(directory: Path) -> list[ImageRecord]:
    """Read the records of an image set, in the order of its lines.

    Raises:
        Hand1000Error: There is no metadata.jsonl, a line is malformed, a name appears twice, or an image is missing;
            the message names the file and the line.
    """
    path = directory / METADATA
    present = {file.name for file in directory.iterdir()} if directory.is_dir() else set()
    records, names = [], set()
    for number, record in read_records(path, ImageRecord):
        if record.file_name in names:
            raise Hand1000Error(f"{path}: line {number}: {record.file_name} appears twice; remove one line")
        if record.file_name not in present:
            raise Hand1000Error(f"{path}: line {number}: no such image: {record.file_name}; add it or remove the line")
        names.add(record.file_name)
        records.append(record)
    return records


def write_metadata(directory: Path, records: Iterable[ImageRecord]) -> None:
    """Write `metadata.jsonl` atomically, sorted by file name."""
    rows = []
    for record in sorted(records, key=lambda record: record.file_name):
        empty = {name for name in _OPTIONAL if getattr(record, name) in (None, "")}
        rows.append(record.model_dump(mode="json", exclude=empty))
    write_jsonl(directory / METADATA, rows)


def merge_image_sets(parts: Sequence[Path], directory: Path) -> Path:
    """Make `directory` one image set of all images of `parts`, by links, so that no image is copied.

    The lines are sorted by file name, so that 1 and 3 shards give the same set.
    """
    directory.mkdir(parents=True, exist_ok=True)
    records = []
    for part in parts:
        for record in read_image_set(part):
            (directory / record.file_name).symlink_to((part / record.file_name).resolve())
            records.append(record)
    write_metadata(directory, records)
    return directory
