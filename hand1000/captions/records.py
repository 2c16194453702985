"""Completed captions kept by file name, and what they are to be published as."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hand1000.captions.rewrite import Completed
from hand1000.config.base import format_validation_error
from hand1000.core.errors import Hand1000Error
from hand1000.storage.files import read_jsonl, write_jsonl


class CompletedLine(BaseModel):
    """One image's caption before and after its completion, as one line of a file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file_name: str = Field(min_length=1)
    caption: str
    captioner: str
    completed: Completed


def write_completed(path: Path, lines: Sequence[CompletedLine]) -> None:
    """Write `lines` as JSON Lines, in the order of the names."""
    named = {line.file_name: line for line in lines}
    write_jsonl(path, [named[name] for name in sorted(named)])


def read_completed(paths: Sequence[Path]) -> dict[str, CompletedLine]:
    """The lines of one captioner's files, shards in any order, by file name.

    Raises:
        Hand1000Error: a file is missing, or a line is malformed; it names file and line.
    """
    lines: dict[str, CompletedLine] = {}
    for path in paths:
        for number, row in read_jsonl(path):
            try:
                line = CompletedLine.model_validate(row)
            except ValidationError as error:
                raise Hand1000Error(format_validation_error(error, f"{path}: line {number}")) from error
            lines[line.file_name] = line
    return lines
