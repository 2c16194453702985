"""What metadata files say about images, in one form: `metadata.jsonl`, `metadata.csv` and `metadata.parquet`."""

import csv
import math
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from hand1000.core.documents import load_json
from hand1000.core.errors import Hand1000Error, one_line
from hand1000.data.items import IssueLog
from hand1000.data.parquet import open_parquet
from hand1000.data.problem_kinds import BAD_CAPTION, SECOND_CAPTION, UNKNOWN_COLUMN
from hand1000.storage.files import read_jsonl
from hand1000.storage.sources import Source

METADATA_NAMES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
CAPTION_COLUMNS = ("text", "prompt", "caption", "captions")
BOX_COLUMNS = ("bbox", "bboxes", "objects")
FILE_COLUMN = "file_name"

# Columns that hold no caption, box, person or gesture: those of a published dataset, and a width and height in pixels.
_OTHER_COLUMNS = frozenset({"source", "seed", "attributes", "provenance", "captioner", "labels", "width", "height"})
_COLUMNS = frozenset({FILE_COLUMN, "gesture", "user_id", *CAPTION_COLUMNS, *BOX_COLUMNS}) | _OTHER_COLUMNS
_CATEGORIES = ("labels", "label", "categories", "category")
_BLOCK_ROWS = 1024


@dataclass
class Row:
    """What one line says about the image `file`, a name within the source.

    Attributes:
        origin: File and line.
        captions: Captions, none empty.
        captioner: Who wrote them, if the line says so.
        gesture: HaGRID's name; "" if the line names none.
        user_id: The person; "" if the line names none.
        boxes: What is given as boxes, not validated yet, each with its label or "".
        is_list: Whether the boxes are all labelled hands of the image.
        faults: Fields of which the value is of a wrong kind.
    """

    file: str
    origin: str
    captions: tuple[str, ...] = ()
    captioner: str = ""
    gesture: str = ""
    user_id: str = ""
    boxes: list[tuple[Any, str]] = field(default_factory=list)
    is_list: bool = False
    faults: tuple[str, ...] = ()


def read_metadata(source: Source, file: str, issues: IssueLog) -> Iterator[Row]:
    """Yield the lines of a metadata file of any of the three kinds; paths are relative to the file's own folder.

    Raises:
        Hand1000Error: The file or a line is malformed, or does not say which image it is about.
    """
    name, folder = f"{source.root}/{file}", str(PurePosixPath(file).parent)
    readers = {".jsonl": read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}
    named: set[str] = set()
    with source.local_path(file) as path:
        for number, values in readers[PurePosixPath(file).suffix](path, name):
            if not isinstance(image := values.get(FILE_COLUMN), str) or not image:
                raise Hand1000Error(
                    f"{name}: line {number}: no {FILE_COLUMN} among {', '.join(map(repr, values))[:200]}; "
                    "name the image of each line in a column of that name"
                )
            target = posixpath.normpath(posixpath.join(folder, image.replace("\\", "/")))
            yield parse_row(values, target, f"{file}: line {number}", issues, named)


def parse_row(values: Mapping[str, Any], file: str, origin: str, issues: IssueLog, named: set[str]) -> Row:
    """Return the values of a line in their one form; `named` are the columns that were reported before."""
    place = origin.partition(": line ")[0]
    values = {str(name): value for name, value in values.items() if not _is_empty(value)}
    for column in values.keys() - _COLUMNS - named:
        named.add(column)
        issues.count(UNKNOWN_COLUMN, f"{place}: {column!r:.60}")
    faults = []
    captions: tuple[str, ...] = ()
    for column in CAPTION_COLUMNS:
        if column not in values:
            continue
        texts = values[column] if isinstance(values[column], list) else [values[column]]
        usable = tuple(text.strip() for text in texts if isinstance(text, str) and text.strip())
        if len(usable) < len([text for text in texts if not _is_empty(text)]):
            issues.count(BAD_CAPTION, f"{origin}: {column}: {values[column]!r:.60}")
        if not captions:
            captions = usable
        elif usable and "captioner" not in values:  # A published dataset has the caption before its completion.
            issues.count(SECOND_CAPTION, f"{origin}: {column}")
    texts = {}
    for column in ("gesture", "user_id"):
        value = values.get(column, "")
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and column == "user_id"
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # pandas writes a column of numbers with gaps as floats.
        if isinstance(value, str) or is_number:
            texts[column] = str(value).strip()
        else:
            faults.append(column)
    boxes, is_list = _boxes(values)
    captioner = values.get("captioner", "")
    return Row(
        file=file,
        origin=origin,
        captions=tuple(dict.fromkeys(captions)),
        captioner=captioner if isinstance(captioner, str) else "",
        boxes=boxes,
        is_list=is_list,
        faults=tuple(faults),
        **texts,
    )


def _boxes(values: Mapping[str, Any]) -> tuple[list[tuple[Any, str]], bool]:
    """Return what is given as boxes with their labels, and whether it is a list of all hands."""
    if "bbox" in values:
        value = _decode(values["bbox"])
        return ([] if value == [] else [(value, "")]), False
    listed, labels = values.get("bboxes"), values.get("labels")
    if listed is None and "objects" in values:
        objects = _decode(values["objects"])
        if not isinstance(objects, Mapping):
            return [(objects, "")], True
        listed = objects.get("bbox", objects.get("bboxes"))
        labels = next((objects[name] for name in _CATEGORIES if name in objects), None)
    listed, labels = _decode(listed), _decode(labels)
    if listed is None:
        return [], False
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        return [(listed, "")], True
    if listed and all(isinstance(item, int | float) for item in listed):
        listed = [listed]  # One box without its list.
    if not isinstance(labels, Sequence) or isinstance(labels, str) or len(labels) != len(listed):
        labels = [""] * len(listed)
    return [(box, label if isinstance(label, str) else "") for box, label in zip(listed, labels, strict=True)], True


def _decode(value: Any) -> Any:
    """Return the JSON value in a cell of a CSV file, or the value itself."""
    if not isinstance(value, str):
        return value
    try:
        return load_json(value)
    except ValueError:
        return value


def _is_empty(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _require_unique(columns: Sequence[str], name: str) -> None:
    if repeated := [column for column, count in Counter(columns).items() if count > 1]:
        raise Hand1000Error(f"{name}: several columns are called {repeated[0]!r}; rename all but one")


def _read_csv(path: Path, name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            _require_unique(reader.fieldnames or (), name)
            for row in reader:
                if None in row or None in row.values():
                    raise Hand1000Error(
                        f"{name}: line {reader.line_num}: not as many cells as the header has; quote texts with commas"
                    )
                yield reader.line_num, row
    except (csv.Error, UnicodeDecodeError) as error:
        remedy = "save it as UTF-8 with commas between the cells"
        raise Hand1000Error(f"{name}: not CSV in UTF-8: {one_line(error)}; {remedy}") from error


def _read_parquet(path: Path, name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    import pyarrow as pa

    try:
        file, max_rows = open_parquet(path, name)
        _require_unique(file.schema_arrow.names, name)
        batches = file.iter_batches(min(_BLOCK_ROWS, max_rows))
        yield from enumerate((row for batch in batches for row in batch.to_pylist()), start=1)
    except (pa.ArrowException, OSError) as error:
        raise Hand1000Error(f"{name}: cannot be read as Parquet: {one_line(error)}; write it again") from error


def group_rows(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Return the lines of each image, in their order."""
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row.file, []).append(row)
    return grouped
