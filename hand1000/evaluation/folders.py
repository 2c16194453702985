"""Plain folders of pictures as image sets, so that the pictures of any generator can be measured."""

from collections.abc import Sequence
from pathlib import Path

from hand1000.core.errors import Hand1000Error, translate_write_errors
from hand1000.data.crop import load_square
from hand1000.data.imageset import METADATA, ImageRecord, write_metadata
from hand1000.gestures import PHRASES, find_gesture_in_prompt
from hand1000.storage.digests import digest_file

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
UNKNOWN = "unknown"
"""The gesture of pictures that may show any; no accuracy is told of them."""

SIDE = 512
"""Pixels of a side: larger pictures are made smaller, and all are cut square, so that sizes may be mixed."""


def read_prompts(path: Path) -> list[str]:
    """A prompt a line.

    Raises:
        Hand1000Error: no such file.
    """
    try:
        return [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except OSError as error:
        raise Hand1000Error(f"{path}: cannot be read: {error.strerror}; give a text file, a prompt a line") from error


def import_plain_folder(folder: Path, out: Path, gesture: str | None, prompts: Sequence[str] | None) -> Path:
    """An image set of `folder`'s pictures: itself if it is one, else their middle squares in `out`.

    Args:
        folder: with a metadata.jsonl, or of pictures.
        out: a folder that is made.
        gesture: what all pictures were to show.
        prompts: what each was drawn from, by the order of their names; each says its gesture where `gesture` does not.

    Raises:
        Hand1000Error: no such folder, fewer than two pictures, an unreadable one, or one whose gesture nobody says.
    """
    if (folder / METADATA).is_file():
        return folder
    if not folder.is_dir():
        raise Hand1000Error(f"{folder}: no such folder")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if len(paths) < 2:
        raise Hand1000Error(f"{folder}: {len(paths)} pictures ({', '.join(SUFFIXES)}); a distance needs two or more")
    if prompts is not None and len(prompts) != len(paths):
        raise Hand1000Error(f"{folder}: {len(paths)} pictures, but {len(prompts)} prompts; give one a picture")
    if gesture is None and prompts is None:
        raise Hand1000Error(f"{folder}: no {METADATA} says what its pictures show; give --gesture or --prompts")
    with translate_write_errors(out):
        out.mkdir(parents=True)
    records = []
    for number, path in enumerate(paths):
        pixels, _ = load_square(path, SIDE, crop="center")
        name = f"{number:06d}.png"
        _save(pixels, out / name)
        prompt = prompts[number] if prompts else path.name
        records.append(
            ImageRecord(
                file_name=name,
                text=prompt,
                caption=prompt,
                captioner="none",
                gesture=gesture or find_gesture_in_prompt(prompt, tuple(PHRASES)),
                user_id=path.stem,
                source=digest_file(path),
            )
        )
    write_metadata(out, records)
    return out


def _save(pixels, path: Path) -> None:
    from PIL import Image

    with translate_write_errors(path):
        Image.fromarray(pixels).save(path)
