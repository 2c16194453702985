"""The image set: square PNG files and their records, the layout of a Hugging Face imagefolder.

The records are in `metadata.jsonl`; those of a published dataset are in `metadata.parquet`, whose columns have explicit
types: in JSON, `datasets` takes a column without a value in one split for one of another type and refuses the dataset.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator

from hand1000.config.base import Fraction, format_validation_error
from hand1000.core.documents import load_json
from hand1000.core.errors import Hand1000Error, one_line
from hand1000.data.parquet import open_parquet
from hand1000.storage.digests import Sha256, canonical_json
from hand1000.storage.files import read_records, write_bytes, write_jsonl
from hand1000.storage.keys import find_key_fault

METADATA = "metadata.jsonl"
TYPED_METADATA = "metadata.parquet"

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
        if find_key_fault(name) or "/" in name or name.startswith("."):
            raise ValueError("not the plain name of a file beside metadata.jsonl")
        return name


def read_image_set(directory: Path) -> list[ImageRecord]:
    """Read the records of an image set, in the order of its lines.

    Raises:
        Hand1000Error: There is no metadata.jsonl or metadata.parquet, a line is malformed, a name appears twice, or an
            image is missing; the message names the file and the line.
    """
    path = directory / METADATA
    if not path.exists() and (directory / TYPED_METADATA).is_file():
        path = directory / TYPED_METADATA
    present = {file.name for file in directory.iterdir()} if directory.is_dir() else set()
    records, names = [], set()
    lines = read_records(path, ImageRecord) if path.name == METADATA else _read_typed_records(path)
    for number, record in lines:
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


def write_typed_metadata(directory: Path, records: Iterable[ImageRecord]) -> None:
    """Write `metadata.parquet` atomically, sorted by file name, with the same columns and types for any records.

    `attributes` is JSON in a column of text, since the names in it differ between images.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, optional = pa.string(), {"captions": pa.list_(pa.string()), "bbox": pa.list_(pa.float64())}
    names = ("file_name", "text", "caption", "captions", "captioner", "gesture", "user_id", "bbox", "source")
    schema = pa.schema([(name, optional.get(name, text)) for name in (*names, "provenance", "attributes")])
    rows = []
    for record in sorted(records, key=lambda record: record.file_name):
        row = record.model_dump(mode="json", exclude={"seed"})
        rows.append(row | {"attributes": canonical_json(record.attributes) if record.attributes else None})
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), buffer)
    write_bytes(directory / TYPED_METADATA, buffer.getvalue())


def _read_typed_records(path: Path) -> Iterator[tuple[int, ImageRecord]]:
    import pyarrow as pa

    try:
        rows: list[dict[str, Any]] = open_parquet(path, str(path))[0].read().to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise Hand1000Error(f"{path}: cannot be read as Parquet: {one_line(error)}") from error
    for number, row in enumerate(rows, start=1):
        values = {name: value for name, value in row.items() if value is not None}
        try:
            attributes = {"attributes": load_json(values["attributes"])} if "attributes" in values else {}
            yield number, ImageRecord.model_validate(values | attributes)
        except ValidationError as error:
            raise Hand1000Error(format_validation_error(error, f"{path}: line {number}")) from error
        except (ValueError, TypeError) as error:
            raise Hand1000Error(f"{path}: line {number}: attributes: not JSON: {one_line(error)}") from error


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
