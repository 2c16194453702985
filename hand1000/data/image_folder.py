"""A folder of one's own pictures, or a published data set.

Files in `<root>/<gesture>/` or in `<root>/` itself, with or without a Hugging Face imagefolder's `metadata.jsonl`
beside them; or in `<root>/train/` and `<root>/test/`, as a published data set has them.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import PurePosixPath

from pydantic import BaseModel, ConfigDict, ValidationError

from hand1000.config.base import format_validation_error
from hand1000.core.errors import Hand1000Error
from hand1000.data.imageset import METADATA
from hand1000.data.items import SUFFIXES, Box, SourceImage, clip_box, safe_key
from hand1000.storage.digests import digest_file
from hand1000.storage.files import read_jsonl
from hand1000.storage.sources import Source


class _MetadataLine(BaseModel):
    """A line of an imagefolder's metadata; other columns are passed over."""

    model_config = ConfigDict(extra="ignore")

    file_name: str
    text: str | None = None
    caption: str | None = None
    gesture: str | None = None
    user_id: str | None = None
    bbox: Box | None = None


def find_image_folder(source: Source, gesture: str) -> str:
    """The folder that holds the pictures of `gesture`: the one of that name, else the source itself.

    Raises:
        Hand1000Error: neither holds any; the message names the folders that do.
    """
    for folder in (gesture, ""):
        if any(map(_is_picture, source.list_files(folder))):
            return folder
    present = [folder for folder in source.list_folders() if any(map(_is_picture, source.list_files(folder)))]
    raise Hand1000Error(
        f"{source.root}: no pictures of {gesture!r}; "
        + (f"there are: {', '.join(present)}" if present else "it is empty")
    )


def read_image_folder(source: Source, folder: str, gesture: str, *, alone: bool = True) -> list[SourceImage]:
    """The pictures in `folder` of which the metadata does not say that they show another gesture.

    A picture without `user_id` counts as a person, named by its content, so that copies are one person.

    Args:
        source: that holds them.
        folder: within it.
        gesture: HaGRID's name.
        alone: False where pictures of other gestures are read too: then each picture must say what it shows, by its
            metadata or by the name of `folder`.

    Raises:
        Hand1000Error: metadata that is malformed or names a picture that is not there, no picture of `gesture`, or one
            of which nothing says what it shows.
    """
    files = {PurePosixPath(file).name: file for file in sorted(source.list_files(folder))}
    pictures = {name: file for name, file in files.items() if _is_picture(file)}
    lines = _read_metadata(source, files[METADATA], pictures) if METADATA in files else {}
    stems = Counter(PurePosixPath(name).stem for name in pictures)
    items = []
    for name, file in pictures.items():
        line = lines.get(name, _MetadataLine(file_name=name))
        if line.gesture not in (None, gesture):
            continue
        if line.gesture is None and folder != gesture and not alone:
            raise Hand1000Error(
                f"{source.root}/{file}: nothing says which gesture it shows; put the pictures of several gestures "
                f"into folders of their names, or give each its `gesture` in {METADATA}"
            )
        stem = PurePosixPath(name).stem
        items.append(
            SourceImage(
                key=safe_key(stem if stems[stem] == 1 else name),  # a.jpg and a.png are two pictures.
                file=file,
                gesture=gesture,
                user_id=line.user_id or _digest(source, file),
                bbox=clip_box(line.bbox) if line.bbox else None,
                # A published set's text is its caption completed and checked, perhaps by a language model.
                caption=line.text or line.caption,
            )
        )
    if not items:
        present = sorted({line.gesture for line in lines.values() if line.gesture})
        where = f"{source.root}/{folder}".rstrip("/")
        raise Hand1000Error(f"{where}: no pictures of {gesture!r}; there are: {', '.join(present) or 'none at all'}")
    return items


def _digest(source: Source, file: str) -> str:
    with source.local_path(file) as path:
        return digest_file(path)


def _read_metadata(source: Source, file: str, pictures: Mapping[str, str]) -> dict[str, _MetadataLine]:
    lines = {}
    where = f"{source.root}/{file}"
    with source.local_path(file) as path:
        for number, row in read_jsonl(path):
            try:
                line = _MetadataLine.model_validate(row)
            except ValidationError as error:
                raise Hand1000Error(format_validation_error(error, f"{where}: line {number}")) from error
            if line.file_name not in pictures:
                raise Hand1000Error(f"{where}: line {number}: no such picture beside it: {line.file_name}")
            lines[line.file_name] = line
    return lines


def _is_picture(file: str) -> bool:
    return PurePosixPath(file).suffix.lower() in SUFFIXES
