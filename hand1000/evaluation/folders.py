"""Import of any images of a user, so that the images of any generator can be evaluated."""

import logging
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from hand1000.core.errors import Hand1000Error, one_line, translate_write_errors
from hand1000.data.crop import UnreadableImageError, load_square, upright_size
from hand1000.data.formats import is_image
from hand1000.data.imageset import METADATA, ImageRecord, read_image_set, write_metadata
from hand1000.data.items import MAX_LISTED, IssueLog, SourceImage
from hand1000.data.png import save_png
from hand1000.data.problem_kinds import BESIDE_PIXELS
from hand1000.data.sources.merge import BBoxFormat
from hand1000.data.sources.reader import ImageReader
from hand1000.gestures import PHRASES, find_gesture_in_prompt
from hand1000.storage.digests import digest_file
from hand1000.storage.sources import open_source

logger = logging.getLogger(__name__)

UNKNOWN_GESTURE = "unknown"
"""Target gesture of images that may show any gesture; their accuracy is not computed."""

MAX_SIDE = 512
"""Side in pixels to which larger images are reduced; smaller ones keep their pixels, so that both imports are equal."""


def read_prompts(path: Path) -> list[str]:
    """Read a text file with one prompt per line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = one_line(getattr(error, "strerror", None) or error)
        remedy = "give a text file in UTF-8 with one prompt per line"
        raise Hand1000Error(f"{path}: cannot be read: {reason}; {remedy}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def import_images(
    folder: Path,
    output_dir: Path,
    gesture: str | None,
    prompts: Sequence[str] | None,
    *,
    bbox_format: BBoxFormat = "relative",
) -> Path:
    """Return `folder` if it is an image set of small squares, else an image set of the square crops of its images.

    Args:
        folder: Folder of images in any layout that a training reads (docs/data.md).
        output_dir: Folder that is created for the image set.
        gesture: Target gesture of all images; None takes that of each image's record, or infers it from its prompt.
        prompts: Prompts of the images in the order of their file names.
        bbox_format: What the numbers of boxes in metadata files are.

    Raises:
        Hand1000Error: The folder is missing, has fewer than two images or an unreadable one, or a gesture is unknown.
    """
    if prompts is None and _is_small_image_set(folder):
        return folder
    source = open_source(folder)
    issues = IssueLog(source.root, quiet=True)
    reader = ImageReader(source, issues, bbox_format=bbox_format)
    items = sorted(reader.read_all(gesture if gesture in PHRASES else ""), key=lambda item: item.file)
    if len(items) < 2:
        _log_issues(folder, issues)
        raise Hand1000Error(f"{folder}: {len(items)} images; a distance needs at least two; add images")
    if prompts is not None and len(prompts) != len(items):
        raise Hand1000Error(f"{folder}: {len(items)} images, but {len(prompts)} prompts; give one prompt per image")
    with translate_write_errors(output_dir):
        output_dir.mkdir(parents=True)
    records = []
    for index, item in enumerate(items):
        prompt = prompts[index] if prompts else item.caption or ""
        target = gesture if gesture in PHRASES else item.gesture or gesture
        if not (target or prompt):
            raise Hand1000Error(f"{folder}: nothing names the gesture of its images; give --gesture or --prompts")
        with reader.source.local_path(item.file) as path:
            record = ImageRecord(
                file_name=f"{index:06d}.png",
                text=prompt or path.name,
                caption=prompt or path.name,
                captioner="none",
                gesture=target or find_gesture_in_prompt(prompt, tuple(PHRASES)),
                user_id=item.user_id,
                source=digest_file(path),
            )
            try:
                faults = _write_square(path, item, output_dir / record.file_name)
            except UnreadableImageError as error:
                raise Hand1000Error(f"{folder}/{item.file}: {error.reason}; repair or remove it") from error
        for fault in faults:
            issues.count(BESIDE_PIXELS, f"{item.file}: {fault}")
        records.append(record)
    _log_issues(folder, issues)
    write_metadata(output_dir, records)
    return output_dir


def _log_issues(folder: Path, issues: IssueLog) -> None:
    for text in [*issues.warnings, *issues.problems]:
        logger.warning("%s: %s", folder, text)
    if issues.unusable:
        named = "; ".join(f"{skipped.file}: {skipped.reason}" for skipped in issues.unusable[:MAX_LISTED])
        logger.warning("%s: %d images are skipped: %s", folder, len(issues.unusable), named)


def _write_square(path: Path, item: SourceImage, target: Path) -> list[str]:
    """Write the square crop, and return the faults beside the pixels."""
    faults: list[str] = []
    pixels, _ = load_square(path, min(*upright_size(path), MAX_SIDE), item.bbox, on_fault=faults.append)
    with translate_write_errors(target):
        save_png(Image.fromarray(pixels), target)
    return faults


def _is_small_image_set(folder: Path) -> bool:
    """Whether the folder is an image set that an import would not change."""
    if not (folder / METADATA).is_file():
        return False
    try:
        names = {record.file_name for record in read_image_set(folder)}
        sizes = {upright_size(folder / name) for name in names}
    except Hand1000Error:  # Not an image set of this project, which has stricter rules than an imagefolder.
        return False
    others = (name for name in open_source(folder).list_files("") if is_image(name) and name not in names)
    return not any(others) and all(width == height <= MAX_SIDE for width, height in sizes)
