"""An image set: PNG files and `metadata.jsonl`, the layout of a Hugging Face imagefolder."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator

from hand1000.config.base import Fraction, format_validation_error
from hand1000.core.errors import Hand1000Error
from hand1000.storage.digests import Sha256
from hand1000.storage.files import read_jsonl, write_jsonl

METADATA = "metadata.jsonl"

_OPTIONAL = ("text", "caption", "captioner", "seed", "attributes")

Text = Annotated[str, Field(min_length=1)]
BBox = tuple[Fraction, Fraction, Fraction, Fraction]
"""x, y, width and height of a box relative to its image: 0 to 1, from the upper left corner."""


class ImageRecord(BaseModel):
    """One image of a set; docs/architecture.md, "The data shapes", says what the fields mean."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file_name: Text
    text: str = ""
    caption: str = ""
    captioner: str = ""
    gesture: Text
    user_id: Text
    bbox: BBox | None = None
    source: Sha256
    seed: int | None = Field(default=None, ge=0)
    attributes: dict[str, JsonValue] | None = None

    @field_validator("file_name")
    @classmethod
    def _lies_beside_the_metadata(cls, name: str) -> str:
        if "/" in name or "\\" in name or "\0" in name or name.startswith("."):
            raise ValueError("not the plain name of a file beside metadata.jsonl")
        return name


def read_image_set(directory: Path) -> list[ImageRecord]:
    """The records of an image set, in the order of its lines.

    Raises:
        Hand1000Error: no metadata.jsonl, a line that is malformed, a name that stands twice, or an image that is not
            there; the message names the file and the line.
    """
    path = directory / METADATA
    present = {file.name for file in directory.iterdir()} if directory.is_dir() else set()
    records, seen = [], set()
    for number, row in read_jsonl(path):
        try:
            record = ImageRecord.model_validate(row)
        except ValidationError as error:
            raise Hand1000Error(format_validation_error(error, f"{path}: line {number}")) from error
        if record.file_name in seen:
            raise Hand1000Error(f"{path}: line {number}: {record.file_name} stands twice; remove one")
        if record.file_name not in present:
            raise Hand1000Error(f"{path}: line {number}: no such image: {record.file_name}")
        seen.add(record.file_name)
        records.append(record)
    return records


def write_metadata(directory: Path, records: Iterable[ImageRecord]) -> None:
    """Write `metadata.jsonl` atomically, in the order of the file names, whatever that of `records`."""
    ordered = sorted(records, key=lambda record: record.file_name)
    # Fields that only some data sets have are left out elsewhere: a column of nulls would say nothing.
    write_jsonl(
        directory / METADATA,
        (
            record.model_dump(mode="json", exclude={name for name in _OPTIONAL if getattr(record, name) in (None, "")})
            for record in ordered
        ),
    )


@dataclass(frozen=True)
class ImageSet:
    """The records of an image set together with the folder that they lie in."""

    directory: Path
    records: tuple[ImageRecord, ...]

    @classmethod
    def read(cls, directory: Path) -> Self:
        """The set in `directory`; raises as `read_image_set` does."""
        return cls(directory, tuple(read_image_set(directory)))

    def __len__(self) -> int:
        return len(self.records)

    @property
    def file_names(self) -> list[str]:
        """The images' names, in the order of the records."""
        return [record.file_name for record in self.records]

    @property
    def paths(self) -> list[Path]:
        """The images' files, in the order of the records."""
        return [self.directory / record.file_name for record in self.records]

    @property
    def texts(self) -> list[str]:
        """The completed captions, in the order of the records."""
        return [record.text for record in self.records]
