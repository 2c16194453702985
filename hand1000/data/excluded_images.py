"""The images of excluded people below an artifact root: where they are, and a published dataset without them."""

import io
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from hand1000.core.documents import load_json
from hand1000.core.errors import Hand1000Error, one_line
from hand1000.data.formats import HEIF_SUFFIXES, image_suffixes
from hand1000.data.imageset import METADATA, TYPED_METADATA, read_image_set, write_typed_metadata
from hand1000.data.items import safe_key
from hand1000.data.prepare import REPORT, PreparationReport
from hand1000.data.publish import CARD, SPLITS
from hand1000.gestures import PHRASES
from hand1000.storage.artifacts import ArtifactStore
from hand1000.storage.digests import digest_json
from hand1000.storage.exclusions import Exclusions
from hand1000.storage.files import read_json, write_json, write_text
from hand1000.storage.inventory import Piece

_CAPTIONS = ("train.jsonl", "test.jsonl")
_MAX_SCANNED_BYTES = 100_000_000


@dataclass(frozen=True)
class ExcludedImages:
    """The images of excluded people in one artifact.

    Attributes:
        names: Names of the images within the artifact.
        unreadable: Why the artifact's metadata cannot be read; "" if they can.
    """

    names: frozenset[str] = frozenset()
    unreadable: str = ""

    def __bool__(self) -> bool:
        """Whether the artifact holds, or may hold, such an image."""
        return bool(self.names or self.unreadable)

    @property
    def file_names(self) -> set[str]:
        """Names of the image files without their folders."""
        return {PurePosixPath(name).name for name in self.names}


def parse_image_id(text: str) -> str:
    """Return the name under which the exclusion list has an image: `KEY` or `GESTURE/KEY`.

    Args:
        text: A file name of the source with or without its suffix, alone or below its gesture.
    """
    path = PurePosixPath(text)
    gesture = path.parent.name
    is_file = path.suffix.lower() in image_suffixes() | HEIF_SUFFIXES
    key = safe_key(path.stem if is_file else path.name)
    return f"{gesture}/{key}" if gesture in PHRASES else key


def find_excluded_images(store: ArtifactStore, piece: Piece, exclusions: Exclusions) -> ExcludedImages:
    """Return the images of excluded people in the image sets of an artifact, which is not downloaded."""
    names = set()
    for file in sorted(store.backend.file_sizes(piece.key)):
        path = PurePosixPath(file)
        if path.name in (METADATA, TYPED_METADATA):
            try:
                rows = list(_read_rows(store.backend.read(f"{piece.key}/{file}") or b"", path.name))
                excluded = [row["file_name"] for row in rows if _is_excluded(row, exclusions)]
            except (Hand1000Error, ValueError, KeyError, TypeError, AttributeError, OSError) as error:
                return ExcludedImages(unreadable=f"{file}: {one_line(error)}")
            names |= {str(path.with_name(name)) for name in excluded}
    return ExcludedImages(frozenset(names))


def mentions_any(store: ArtifactStore, piece: Piece, file_names: Collection[str]) -> bool:
    """Return whether a JSON file of an artifact names one of the images; for artifacts of unknown origin."""
    needles = [f'"{name}"'.encode() for name in sorted(file_names)]
    for file, size in store.backend.file_sizes(piece.key).items():
        if file.endswith((".json", ".jsonl")) and size <= _MAX_SCANNED_BYTES:
            data = store.backend.read(f"{piece.key}/{file}") or b""
            if any(needle in data for needle in needles):
                return True
    return False


def caption_cache_keys(store: ArtifactStore, piece: Piece, images: Mapping[str, str]) -> set[str]:
    """Return the keys under which the caches hold what language models made of captions of images.

    Args:
        store: The artifact root.
        piece: An artifact of `caption_images`.
        images: Gesture of each image by file name.
    """
    keys = set()
    for name in _CAPTIONS:
        for row in _read_rows(store.backend.read(f"{piece.key}/{name}") or b"", name):
            if row.get("file_name") in images:
                keys.add(digest_json((row.get("caption"), images[row["file_name"]])))
    return keys


def gestures_of(store: ArtifactStore, piece: Piece, names: Collection[str]) -> dict[str, str]:
    """Return the gesture of each of the named images of an artifact, by file name without its folder."""
    return {row["file_name"]: row["gesture"] for row in _rows_of(store, piece, names)}


def source_digests(store: ArtifactStore, piece: Piece, names: Collection[str]) -> set[str]:
    """Return the digests of the files of which the named images of an artifact were made."""
    return {row["source"] for row in _rows_of(store, piece, names)}


def _rows_of(store: ArtifactStore, piece: Piece, names: Collection[str]) -> Iterator[dict[str, Any]]:
    for folder in {str(PurePosixPath(name).parent) for name in names}:
        for metadata in (METADATA, TYPED_METADATA):
            data = store.backend.read(f"{piece.key}/{PurePosixPath(folder) / metadata}")
            for row in _read_rows(data or b"", metadata):
                if str(PurePosixPath(folder) / row["file_name"]) in names:
                    yield row


def copy_without(folder: Path, output_dir: Path, exclusions: Exclusions) -> bool:
    """Copy a published dataset without the images of excluded people; return False if a split has no image left.

    `captions.html` is left out, because it shows images; the card and `preparation.json` state the new numbers.

    Raises:
        Hand1000Error: `folder` is not a published dataset, or `output_dir` is full or not writable.
    """
    counts = {}
    for split in SPLITS:
        records = read_image_set(folder / split)
        kept = [record for record in records if not _is_excluded(record.model_dump(), exclusions)]
        if not kept:
            return False
        (output_dir / split).mkdir(parents=True)
        for record in kept:
            shutil.copyfile(folder / split / record.file_name, output_dir / split / record.file_name)
        write_typed_metadata(output_dir / split, kept)
        counts[split] = len(kept)
    report = PreparationReport.model_validate(read_json(folder / REPORT))
    write_json(output_dir / REPORT, report.model_copy(update=counts).model_dump(mode="json"))
    card = (folder / CARD).read_text()
    old, new = (
        f"{train} training and {test} test images"
        for train, test in ((report.train, report.test), (counts["train"], counts["test"]))
    )
    write_text(output_dir / CARD, card.replace(old, new))
    for path in folder.iterdir():
        if path.is_file() and path.name not in (CARD, REPORT, "captions.html"):
            shutil.copyfile(path, output_dir / path.name)
    return True


def _is_excluded(row: Mapping[str, Any], exclusions: Exclusions) -> bool:
    stem, gesture = PurePosixPath(row["file_name"]).stem, row["gesture"]
    keys = {stem, stem.removesuffix(f"-{gesture}")}
    return exclusions.holds_person(row["user_id"]) or any(exclusions.holds_image(gesture, key) for key in keys)


def _read_rows(data: bytes, name: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a metadata file; they are not validated, since a damaged one must not hide an image."""
    if name.endswith(".parquet") and data:
        import pyarrow.parquet as pq

        yield from pq.read_table(io.BytesIO(data)).to_pylist()
    else:
        yield from (load_json(line) for line in data.split(b"\n") if line.strip())
