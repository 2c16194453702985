"""Preparation of a dataset: the selected images of a source become its two image sets of square crops."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from hand1000.config.data_settings import DataSettings
from hand1000.core.errors import Hand1000Error, translate_write_errors
from hand1000.core.progress import ProgressCallback, noop_callback
from hand1000.core.rng import derived_seed, numpy_generator
from hand1000.data.crop import UnreadableImageError, load_square
from hand1000.data.imageset import BBox, ImageRecord, write_metadata
from hand1000.data.items import MAX_LISTED, IssueLog, Problem, SkippedImage, SourceImage
from hand1000.data.png import save_png
from hand1000.data.problem_kinds import BESIDE_PIXELS
from hand1000.data.selection import Selection
from hand1000.gestures import group_by_gesture
from hand1000.storage.digests import digest_file

logger = logging.getLogger(__name__)

REPORT = "preparation.json"
"""File of a dataset with its `PreparationReport`."""

_CHUNK_SIZE = 32  # Images in memory at a time; more gain nothing.

HandCheck = Callable[[np.ndarray, BBox], bool]
"""Whether a detector finds the labelled hand in a crop, (S, S, 3) uint8 RGB."""


class PreparationReport(BaseModel):
    """What became of the selected images; a dataset has it as `preparation.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: int
    test: int
    unusable: tuple[SkippedImage, ...]
    warnings: tuple[str, ...]
    filter_counts: dict[str, int]
    problems: tuple[Problem, ...] = ()

    @model_serializer(mode="wrap")
    def _without_empty_problems(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out the problems of a source that has none, so that its dataset keeps its digest."""
        return {name: value for name, value in serialize(self).items() if name != "problems" or value}

    def problem_counts(self) -> dict[str, float]:
        """Return the number of skipped images and of each kind of problem, named as MLflow metrics."""
        counts: dict[str, float] = {f"data/{problem.kind}": problem.count for problem in self.problems}
        return counts | ({"data/skipped images": len(self.unusable)} if self.unusable else {})

    def problem_lines(self) -> list[str]:
        """Return one line per kind of problem, with the first names and the remedy."""
        lines = [str(problem) for problem in self.problems]
        if self.unusable:
            problem = Problem(
                kind="skipped image",
                count=len(self.unusable),
                names=tuple(f"{image.file}: {image.reason}" for image in self.unusable[:MAX_LISTED]),
                remedy="repair or remove them",
            )
            lines.insert(0, str(problem))
        return lines


def prepare_image_sets(
    selection: Selection,
    output_dir: Path,
    settings: DataSettings,
    *,
    resolution: int,
    seed: int,
    check: HandCheck | None = None,
    on_progress: ProgressCallback = noop_callback,
) -> PreparationReport:
    """Crop the selected images and write `train` and `test` into `output_dir`.

    Args:
        selection: Images of `hand1000.data.selection.select_images`.
        output_dir: New or empty folder.
        settings: `crop` and `max_unusable` of the data.
        resolution: Side of the PNG files in pixels.
        seed: Random seed of the crops, which are also keyed by the image.
        check: Rejects crops without their labelled hand; spare images of the selection replace them.
        on_progress: Called with the number of images done and in all.

    Raises:
        Hand1000Error: Too many images are unusable, a split has no image left, or `output_dir` is full or not writable.
    """
    splits = {
        "train": (selection.num_train, group_by_gesture(selection.train)),
        "test": (selection.num_test, group_by_gesture(selection.test)),
    }
    num_wanted = sum(min(count, len(items)) for count, groups in splits.values() for items in groups.values())
    preparation = _Preparation(selection, settings, resolution, seed, check, num_wanted, on_progress)
    preparation.require_usable()
    counts = {}
    for name, (count, groups) in splits.items():
        with translate_write_errors(output_dir / name):
            (output_dir / name).mkdir(parents=True, exist_ok=True)
        records: list[ImageRecord] = []
        for gesture, items in groups.items():
            records += preparation.crop_images(name, gesture, items, count, output_dir / name)
        write_metadata(output_dir / name, records)
        counts[name] = len(records)
    filter_counts = dict(selection.filter_counts)
    if check:
        filter_counts["hand not found by MediaPipe"] = preparation.num_rejected
    return PreparationReport(
        **counts,
        unusable=tuple(preparation.issues.unusable),
        warnings=tuple(preparation.issues.warnings),
        filter_counts=filter_counts,
        problems=(*selection.problems, *preparation.issues.problems),
    )


class _Crop(NamedTuple):
    """A crop that was written, with the faults beside the pixels of its image."""

    record: ImageRecord
    square: np.ndarray
    faults: list[str]


@dataclass
class _Preparation:
    """The state of a preparation: what was skipped and rejected so far."""

    selection: Selection
    settings: DataSettings
    resolution: int
    seed: int
    check: HandCheck | None
    num_wanted: int
    on_progress: ProgressCallback
    num_rejected: int = 0
    num_done: int = 0

    def __post_init__(self) -> None:
        selection = self.selection
        self.issues = IssueLog(selection.source.root, False, list(selection.warnings), list(selection.unusable))
        self._single_gesture = len({item.gesture for item in selection.train}) == 1

    def require_usable(self) -> None:
        """Raise a `Hand1000Error` if more images are unusable than the settings allow.

        Images without a usable annotation are a share of those that the source has, images that do not decode a share
        of those that this preparation reads.
        """
        unusable, num_in_source = self.issues.unusable, len(self.selection.unusable)
        require_usable(unusable[:num_in_source], self.selection.num_read, self.settings.max_unusable)
        require_usable(unusable[num_in_source:], self.num_wanted, self.settings.max_unusable)

    def crop_images(
        self, split: str, gesture: str, items: Sequence[SourceImage], count: int, directory: Path
    ) -> list[ImageRecord]:
        """Write the crops of the first `count` images of a gesture that are not rejected, and return their records."""
        records: list[ImageRecord] = []
        num_wanted, num_used, stream = min(count, len(items)), 0, iter(items)
        with ThreadPoolExecutor(self.selection.source.concurrency) as pool:
            while chunk := list(islice(stream, min(_CHUNK_SIZE, num_wanted - num_used))):
                for item, result in zip(chunk, pool.map(lambda item: self._crop(item, directory), chunk), strict=True):
                    if isinstance(result, UnreadableImageError):
                        self.issues.skip(gesture, item.file, result.reason)
                        self.require_usable()
                    elif self._is_rejected(result.record, result.square):
                        self.num_rejected += 1
                        (directory / result.record.file_name).unlink()
                        logger.info("%s: rejected: MediaPipe finds no hand where one is labelled", item.file)
                        continue
                    else:
                        records.append(result.record)
                        for fault in result.faults:
                            self.issues.count(BESIDE_PIXELS, f"{item.file}: {fault}")
                    num_used += 1
                    self.num_done += 1
                    self.on_progress(self.num_done, self.num_wanted)
        if not records:
            rejected = f"; MediaPipe rejected {self.num_rejected}" if self.num_rejected else ""
            raise Hand1000Error(
                f"{split}: none of {len(items)} images of {gesture} is usable{rejected}; "
                f"{_list_first(self.issues.unusable)}"
            )
        if num_used < num_wanted:
            missing = f"{num_wanted - num_used} fewer images of {gesture} than asked for"
            self.issues.warn(split, f"{missing}: MediaPipe rejected too many")
        return records

    def _is_rejected(self, record: ImageRecord, square: np.ndarray) -> bool:
        return self.check is not None and record.bbox is not None and not self.check(square, record.bbox)

    def _crop(self, item: SourceImage, directory: Path) -> "_Crop | UnreadableImageError":
        source = self.selection.source
        generator = numpy_generator(self.seed, "crop", item.gesture, item.key)
        faults: list[str] = []
        try:
            with source.local_path(item.file) as path:
                square, bbox = load_square(
                    path,
                    self.resolution,
                    item.bbox,
                    generator,
                    self.settings.crop,
                    faults.append,
                    self.settings.max_pixels,
                )
                digest = digest_file(path)
        except UnreadableImageError as error:
            return error
        # A key is unique within its gesture only. The gesture comes last, so that sorting by name mixes the gestures.
        name = f"{item.key}.png" if self._single_gesture else f"{item.key}-{item.gesture}.png"
        with translate_write_errors(directory / name):
            save_png(Image.fromarray(square), directory / name)
        record = ImageRecord(
            file_name=name,
            caption=draw_caption(item, self.seed),
            gesture=item.gesture,
            user_id=item.user_id,
            bbox=bbox,
            source=digest,
            attributes=item.attributes,
            captions=item.captions or None,
            provenance=item.provenance,
        )
        return _Crop(record, square, faults)


def require_usable(unusable: Sequence[SkippedImage], total: int, max_unusable: float) -> None:
    """Raise a `Hand1000Error` if `unusable` are more than a share of `max_unusable` of `total` images."""
    if len(unusable) > max_unusable * total:
        raise Hand1000Error(
            f"{len(unusable)} of {total} images are unusable, more than data.max_unusable = {max_unusable} allows; "
            f"{_list_first(unusable)}"
        )


def draw_caption(item: SourceImage, seed: int) -> str:
    """Return the image's caption, or the one of several that `seed` draws for this image; "" without one."""
    if not item.captions:
        return item.caption or ""
    return item.captions[derived_seed(seed, "caption", item.gesture, item.key) % len(item.captions)]


def _list_first(unusable: Sequence[SkippedImage]) -> str:
    return "the first: " + "; ".join(f"{image.file}: {image.reason}" for image in unusable[:MAX_LISTED])
