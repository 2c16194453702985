"""Who captions the images, and captions kept by file name."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hand1000.captions.completion import to_plain_text
from hand1000.config.base import format_validation_error
from hand1000.core.errors import Hand1000Error
from hand1000.storage.files import read_jsonl, write_jsonl


class Captioner(Protocol):
    """Anything that captions images."""

    name: str
    """Who it is, with its revision: what `captioner` of an image's record says."""

    def caption(self, images: Sequence[Path], known: Sequence[str | None]) -> list[str]:
        """One caption an image, in the order of `images`, each of one line and without the gesture's phrase added.

        Args:
            images: the image files.
            known: the caption that came with each image, if one did.
        """


class DatasetCaptioner:
    """The captions that come with the data, and one that is true of any where none came."""

    name = "dataset"
    fallback = "a photo of a person"

    def caption(self, images: Sequence[Path], known: Sequence[str | None]) -> list[str]:
        """See `Captioner`; the files are not opened."""
        return [to_plain_text(text or "") or self.fallback for _, text in zip(images, known, strict=True)]


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid")

    file_name: str = Field(min_length=1)
    caption: str
    captioner: str


def write_captions(path: Path, captions: Mapping[str, str], captioner: str) -> None:
    """Write captions as JSON Lines, one `{"file_name", "caption", "captioner"}` a line, in the order of the names.

    Each caption carries its image's name, so the order in which images were captioned does not matter.
    """
    write_jsonl(
        path,
        (_Line(file_name=name, caption=captions[name], captioner=captioner) for name in sorted(captions)),
    )


def read_captions(path: Path) -> dict[str, str]:
    """The captions of `write_captions` by file name.

    Raises:
        Hand1000Error: no such file, a line that is malformed, or a name that stands twice; it names file and line.
    """
    captions: dict[str, str] = {}
    for number, row in read_jsonl(path):
        try:
            line = _Line.model_validate(row)
        except ValidationError as error:
            raise Hand1000Error(format_validation_error(error, f"{path}: line {number}")) from error
        if line.file_name in captions:
            raise Hand1000Error(f"{path}: line {number}: {line.file_name} stands twice; remove one")
        captions[line.file_name] = line.caption
    return captions
