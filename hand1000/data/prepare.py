"""From chosen pictures to the two image sets of a data set."""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from PIL import Image
from pydantic import BaseModel, ConfigDict

from hand1000.captions.complete import complete_caption
from hand1000.captions.source import DatasetCaptioner
from hand1000.data.crop import UnreadableImage, load_square
from hand1000.data.imageset import ImageRecord, write_metadata
from hand1000.data.selection import Selection, SourceItem, Unusable
from hand1000.errors import Hand1000Error, writing
from hand1000.randomness import numpy_generator
from hand1000.storage.digests import digest_file

logger = logging.getLogger(__name__)

REPORT = "preparation.json"
"""Where a data set keeps its `PreparationReport`."""

_WORKERS = 2  # Pillow decodes and resizes without the interpreter's lock; more would starve the machine's other work.
_NAMED = 3


class PreparationReport(BaseModel):
    """What became of the chosen pictures; lies in the data set as `preparation.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: int
    test: int
    unusable: tuple[Unusable, ...]
    warnings: tuple[str, ...]
    filtered: dict[str, int]


def prepare_image_sets(
    selection: Selection,
    out: Path,
    *,
    resolution: int,
    max_unusable: float,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> PreparationReport:
    """Crop the chosen pictures and write `out/train` and `out/test`.

    Args:
        selection: the pictures, `hand1000.data.hagrid.select_images`.
        out: a folder that is new or empty.
        resolution: side of the PNG files, in pixels.
        max_unusable: share of unusable pictures, 0 to 1, above which the work stops; up to it they are passed over.
        seed: draws where the square lies in pictures that are not square, keyed by the picture.
        progress: called with the pictures done and all of them.

    Returns:
        the counts, the pictures passed over with their reasons, and the warnings. The caller writes it down.

    Raises:
        Hand1000Error: too many unreadable pictures, none left of one set, or `out` may not be written or is full.
    """
    sets = {"train": selection.train, "test": selection.test}
    unusable = list(selection.unusable)
    total = sum(map(len, sets.values())) + len(unusable)
    _stop_above(max_unusable, unusable, total)
    counts: dict[str, int] = {}
    done = 0
    for name, items in sets.items():
        with writing(out / name):
            (out / name).mkdir(parents=True, exist_ok=True)
        records: list[ImageRecord] = []
        for item, result in zip(items, _prepared(items, out / name, resolution, seed), strict=True):
            if isinstance(result, Unusable):
                unusable.append(result)
                logger.warning("%s: passed over: %s", item.path, result.reason)
                _stop_above(max_unusable, unusable, total)
            else:
                records.append(result)
            done += 1
            if progress:
                progress(done, total - len(selection.unusable))
        if not records:
            raise Hand1000Error(f"{name}: none of {len(items)} pictures can be read; {_first(unusable)}")
        write_metadata(out / name, records)
        counts[name] = len(records)
    return PreparationReport(
        **counts, unusable=tuple(unusable), warnings=selection.warnings, filtered=dict(selection.filtered)
    )


def _prepared(
    items: Sequence[SourceItem], folder: Path, resolution: int, seed: int
) -> Iterator[ImageRecord | Unusable]:
    """What becomes of each picture, in their order; two at a time are worked on."""
    captioner = DatasetCaptioner()
    captions = captioner.caption([item.path for item in items], [item.caption for item in items])
    with ThreadPoolExecutor(_WORKERS) as pool:
        work = partial(_prepare_one, folder=folder, captioner=captioner.name, resolution=resolution, seed=seed)
        yield from pool.map(work, items, captions)


def _prepare_one(
    item: SourceItem, caption: str, *, folder: Path, captioner: str, resolution: int, seed: int
) -> ImageRecord | Unusable:
    try:
        generator = numpy_generator(seed, "crop", item.gesture, item.key)
        square, bbox = load_square(item.path, resolution, item.bbox, generator)
    except UnreadableImage as error:
        return Unusable(file=f"{item.gesture}/{item.path.name}", reason=error.reason)
    name = f"{item.key}.png"
    with writing(folder / name):
        Image.fromarray(square).save(folder / name)
    return ImageRecord(
        file_name=name,
        text=complete_caption(caption, item.gesture),
        caption=caption,
        captioner=captioner,
        gesture=item.gesture,
        user_id=item.user_id,
        bbox=bbox,
        source=digest_file(item.path),
        attributes=item.attributes,
    )


def _stop_above(max_unusable: float, unusable: Sequence[Unusable], total: int) -> None:
    if len(unusable) > max_unusable * total:
        raise Hand1000Error(
            f"{len(unusable)} of {total} pictures cannot be used, more than data.max_unusable = {max_unusable} allows; "
            f"{_first(unusable)}"
        )


def _first(unusable: Sequence[Unusable]) -> str:
    return "the first: " + "; ".join(f"{one.file}: {one.reason}" for one in unusable[:_NAMED])
