"""Reader of a folder of images, or of a published dataset.

The images are in `<root>/<gesture>/` or in `<root>/` itself, with or without a Hugging Face imagefolder's
`metadata.jsonl` beside them; or in `<root>/train/` and `<root>/test/`, as in a published dataset.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import PurePosixPath

from pydantic import BaseModel, ConfigDict

from hand1000.core.errors import Hand1000Error
from hand1000.data.imageset import METADATA
from hand1000.data.items import SUFFIXES, Box, SourceImage, clip_box, safe_key
from hand1000.storage.digests import digest_file
from hand1000.storage.files import read_records
from hand1000.storage.sources import Source


class _MetadataLine(BaseModel):
    """One line of an imagefolder's metadata; other columns are ignored."""

    model_config = ConfigDict(extra="ignore")

    file_name: str
    text: str | None = None
    caption: str | None = None
    gesture: str | None = None
    user_id: str | None = None
    bbox: Box | None = None


def find_image_folder(source: Source, gesture: str) -> str:
    """Return the folder with the images of `gesture`: the one of that name, or "" for the source itself.

    Raises:
        Hand1000Error: Neither has images; the message names the folders that have some.
    """
    for folder in (gesture, ""):
        if any(map(_is_image, source.list_files(folder))):
            return folder
    present = [folder for folder in source.list_folders() if any(map(_is_image, source.list_files(folder)))]
    known = f"there are: {', '.join(present)}" if present else "it is empty"
    raise Hand1000Error(f"{source.root}: no images of {gesture!r}; {known}")


def read_image_folder(source: Source, folder: str, gesture: str, single_gesture: bool = True) -> list[SourceImage]:
    """Read the images in `folder`, without those that the metadata assigns to another gesture.

    An image without `user_id` counts as a person, named by its content, so that copies are one person. Unless
    `single_gesture`, each image needs its gesture in the metadata or in the folder's name.

    Raises:
        Hand1000Error: The metadata is malformed or names a missing image, or there is no image of `gesture`, or one
            without a gesture.
    """
    files = {PurePosixPath(file).name: file for file in sorted(source.list_files(folder))}
    images = {name: file for name, file in files.items() if _is_image(file)}
    lines = _read_metadata(source, files[METADATA], images) if METADATA in files else {}
    stems = Counter(PurePosixPath(name).stem for name in images)
    items = []
    for name, file in images.items():
        line = lines.get(name, _MetadataLine(file_name=name))
        if line.gesture not in (None, gesture):
            continue
        if line.gesture is None and folder != gesture and not single_gesture:
            raise Hand1000Error(
                f"{source.root}/{file}: its gesture is unknown; put the images of several gestures into folders of "
                f"their names, or give each image its `gesture` in {METADATA}"
            )
        stem = PurePosixPath(name).stem
        items.append(
            SourceImage(
                key=safe_key(stem if stems[stem] == 1 else name),  # a.jpg and a.png are two images.
                file=file,
                gesture=gesture,
                user_id=line.user_id or _file_digest(source, file),
                bbox=clip_box(line.bbox) if line.bbox else None,
                # The text of a published dataset is its checked caption, perhaps by a language model.
                caption=line.text or line.caption,
            )
        )
    if not items:
        present = sorted({line.gesture for line in lines.values() if line.gesture})
        name = f"{source.root}/{folder}".rstrip("/")
        raise Hand1000Error(f"{name}: no images of {gesture!r}; there are: {', '.join(present) or 'none at all'}")
    return items


def _file_digest(source: Source, file: str) -> str:
    with source.local_path(file) as path:
        return digest_file(path)


def _read_metadata(source: Source, file: str, images: Mapping[str, str]) -> dict[str, _MetadataLine]:
    lines = {}
    name = f"{source.root}/{file}"
    with source.local_path(file) as path:
        for number, line in read_records(path, _MetadataLine, name):
            if line.file_name not in images:
                fault = f"no such image: {line.file_name}; add it or remove the line"
                raise Hand1000Error(f"{name}: line {number}: {fault}")
            lines[line.file_name] = line
    return lines


def _is_image(file: str) -> bool:
    return PurePosixPath(file).suffix.lower() in SUFFIXES
