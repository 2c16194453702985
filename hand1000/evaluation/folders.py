"""Import of plain image folders, so that the images of any generator can be evaluated."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from hand1000.core.errors import Hand1000Error, translate_write_errors
from hand1000.data.crop import load_square
from hand1000.data.imageset import METADATA, ImageRecord, write_metadata
from hand1000.gestures import PHRASES, find_gesture_in_prompt
from hand1000.storage.digests import digest_file

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
UNKNOWN_GESTURE = "unknown"
"""Target gesture of images that may show any gesture; their accuracy is not computed."""

MAX_SIDE = 512
"""Side in pixels to which larger images are reduced. All images are cropped to squares, so that sizes may be mixed."""


def read_prompts(path: Path) -> list[str]:
    """Read a text file with one prompt per line."""
    try:
        return [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except OSError as error:
        raise Hand1000Error(
            f"{path}: cannot be read: {error.strerror}; give a text file with one prompt per line"
        ) from error


def import_plain_folder(folder: Path, output_dir: Path, gesture: str | None, prompts: Sequence[str] | None) -> Path:
    """Return `folder` if it is an image set, else an image set of the center squares of its images.

    Args:
        folder: Folder of images, with or without a metadata.jsonl.
        output_dir: Folder that is created for the image set.
        gesture: Target gesture of all images; None infers it from each prompt.
        prompts: Prompts of the images in the order of their file names.

    Raises:
        Hand1000Error: The folder is missing, has fewer than two images or an unreadable one, or a gesture is unknown.
    """
    if (folder / METADATA).is_file():
        return folder
    if not folder.is_dir():
        raise Hand1000Error(f"{folder}: no such folder")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if len(paths) < 2:
        raise Hand1000Error(f"{folder}: {len(paths)} images ({', '.join(SUFFIXES)}); a distance needs at least two")
    if prompts is not None and len(prompts) != len(paths):
        raise Hand1000Error(f"{folder}: {len(paths)} images, but {len(prompts)} prompts; give one prompt per image")
    if gesture is None and prompts is None:
        raise Hand1000Error(f"{folder}: no {METADATA} names the gesture of its images; give --gesture or --prompts")
    with translate_write_errors(output_dir):
        output_dir.mkdir(parents=True)
    records = []
    for index, path in enumerate(paths):
        pixels, _ = load_square(path, MAX_SIDE, crop="center")
        name = f"{index:06d}.png"
        with translate_write_errors(output_dir / name):
            Image.fromarray(pixels).save(output_dir / name)
        prompt = prompts[index] if prompts else path.name
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
    write_metadata(output_dir, records)
    return output_dir
