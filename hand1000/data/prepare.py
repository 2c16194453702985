"""From chosen pictures to the two image sets of a data set."""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict

from hand1000.core.errors import Hand1000Error, translate_write_errors
from hand1000.core.rng import numpy_generator
from hand1000.data.crop import Crop, UnreadableImage, load_square
from hand1000.data.imageset import BBox, ImageRecord, write_metadata
from hand1000.data.items import SkippedImage, SourceImage
from hand1000.data.selection import Selection
from hand1000.gestures import group_by_gesture
from hand1000.storage.digests import digest_file

logger = logging.getLogger(__name__)

REPORT = "preparation.json"
"""Where a data set keeps its `PreparationReport`."""

_PART = 32  # Pictures worked on before the first of them is looked at; more would only fill memory.
_NAMED = 3

Check = Callable[[np.ndarray, BBox], bool]
"""Whether the hand that is labelled in a crop, (S, S, 3) uint8 RGB, is there to be seen."""


class PreparationReport(BaseModel):
    """What became of the chosen pictures; lies in the data set as `preparation.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: int
    test: int
    unusable: tuple[SkippedImage, ...]
    warnings: tuple[str, ...]
    filtered: dict[str, int]


def prepare_image_sets(
    selection: Selection,
    out: Path,
    *,
    resolution: int,
    max_unusable: float,
    seed: int,
    crop: Crop = "hand",
    check: Check | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PreparationReport:
    """Crop the chosen pictures and write `out/train` and `out/test`.

    Args:
        selection: the pictures, `hand1000.data.selection.select_images`.
        out: a folder that is new or empty.
        resolution: side of the PNG files, in pixels.
        max_unusable: share of unusable pictures, 0 to 1, above which the work stops; up to it they are passed over.
        seed: draws where the square lies in pictures that are not square, keyed by the picture.
        crop: how the square lies, `hand1000.data.crop.load_square`.
        check: refuses labelled pictures; the selection's spare ones stand in for them.
        progress: called with the pictures done and all of them.

    Returns:
        the counts, the pictures passed over with their reasons, and the warnings. The caller writes it down.

    Raises:
        Hand1000Error: too many unreadable pictures, none left of one set, or `out` may not be written or is full.
    """
    sides = {
        "train": (selection.num_train, group_by_gesture(selection.train)),
        "test": (selection.num_test, group_by_gesture(selection.test)),
    }
    wanted = sum(min(count, len(items)) for count, groups in sides.values() for items in groups.values())
    unusable = list(selection.unusable)
    total = wanted + len(unusable)
    _stop_above(max_unusable, unusable, total)
    work = _Preparation(selection, resolution, seed, crop, check)
    warnings, counts = [*selection.warnings], {}
    done = 0
    for name, (count, groups) in sides.items():
        with translate_write_errors(out / name):
            (out / name).mkdir(parents=True, exist_ok=True)
        records: list[ImageRecord] = []
        for gesture, items in groups.items():
            before = len(records)
            for result in work.results(items, min(count, len(items)), out / name):
                if isinstance(result, SkippedImage):
                    unusable.append(result)
                    _stop_above(max_unusable, unusable, total)
                else:
                    records.append(result)
                done += 1
                if progress:
                    progress(done, wanted)
            if len(records) == before:
                refused = f"; MediaPipe refused {work.refused}" if work.refused else ""
                raise Hand1000Error(
                    f"{name}: none of {len(items)} pictures of {gesture} can be used{refused}; {_first(unusable)}"
                )
            if work.short:
                short = f"{work.short} fewer pictures of {gesture} than asked for"
                warnings.append(f"{name}: {short}: MediaPipe refused too many")
                logger.warning("%s", warnings[-1])
        write_metadata(out / name, records)
        counts[name] = len(records)
    filtered = dict(selection.filtered) | ({"hand not found by MediaPipe": work.refused} if check else {})
    return PreparationReport(
        train=counts["train"],
        test=counts["test"],
        unusable=tuple(unusable),
        warnings=tuple(warnings),
        filtered=filtered,
    )


@dataclass
class _Preparation:
    selection: Selection
    resolution: int
    seed: int
    crop: Crop
    check: Check | None
    refused: int = 0
    short: int = field(default=0, init=False)

    def results(self, items: Sequence[SourceImage], wanted: int, folder: Path) -> Iterator[ImageRecord | SkippedImage]:
        """What becomes of the first `wanted` pictures that are not refused, in their order."""
        waiting = list(reversed(items))
        told = 0
        with ThreadPoolExecutor(self.selection.source.concurrency) as pool:
            while told < wanted and waiting:
                part = [waiting.pop() for _ in range(min(_PART, wanted - told, len(waiting)))]
                for item, result in zip(part, pool.map(lambda item: self._cropped(item, folder), part), strict=True):
                    if isinstance(result, SkippedImage):
                        told += 1
                        yield result
                        continue
                    record, square = result
                    if self.check and record.bbox and not self.check(square, record.bbox):
                        self.refused += 1
                        (folder / record.file_name).unlink()
                        logger.info("%s: passed over: MediaPipe finds no hand where one is labelled", item.file)
                        continue
                    told += 1
                    yield record
        self.short = wanted - told

    def _cropped(self, item: SourceImage, folder: Path) -> tuple[ImageRecord, np.ndarray] | SkippedImage:
        generator = numpy_generator(self.seed, "crop", item.gesture, item.key)
        try:
            with self.selection.source.local_path(item.file) as path:
                square, bbox = load_square(path, self.resolution, item.bbox, generator, self.crop)
                source = digest_file(path)
        except UnreadableImage as error:
            logger.warning("%s/%s: passed over: %s", self.selection.source.root, item.file, error.reason)
            return SkippedImage(file=f"{item.gesture}/{item.file.rpartition('/')[2]}", reason=error.reason)
        name = self._name(item)
        with translate_write_errors(folder / name):
            Image.fromarray(square).save(folder / name)
        record = ImageRecord(
            file_name=name,
            caption=item.caption or "",
            gesture=item.gesture,
            user_id=item.user_id,
            bbox=bbox,
            source=source,
            attributes=item.attributes,
        )
        return record, square

    def _name(self, item: SourceImage) -> str:
        """Beside other gestures' pictures with the gesture, since a key names a picture within its own gesture only.

        It stands last, so that the order of the names mixes the gestures.
        """
        return f"{item.key}.png" if self._alone else f"{item.key}-{item.gesture}.png"

    @cached_property
    def _alone(self) -> bool:
        return len({item.gesture for item in self.selection.train}) == 1


def _stop_above(max_unusable: float, unusable: Sequence[SkippedImage], total: int) -> None:
    if len(unusable) > max_unusable * total:
        raise Hand1000Error(
            f"{len(unusable)} of {total} pictures cannot be used, more than data.max_unusable = {max_unusable} allows; "
            f"{_first(unusable)}"
        )


def _first(unusable: Sequence[SkippedImage]) -> str:
    return "the first: " + "; ".join(f"{one.file}: {one.reason}" for one in unusable[:_NAMED])
