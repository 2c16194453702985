"""Selection of the images of a source: its layout, the filters on its labels, and the split by person.

A source is read once, from front to back, and only images that may still be selected stay in memory.
"""

import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from pydantic import JsonValue

from hand1000.config.data_settings import FilterSettings
from hand1000.core.errors import Hand1000Error
from hand1000.data.items import IssueLog, Problem, SkippedImage, SourceImage
from hand1000.data.sources.merge import BBoxFormat
from hand1000.data.sources.reader import ImageReader
from hand1000.data.split import split_by_person
from hand1000.storage.exclusions import Exclusions
from hand1000.storage.sources import Source

logger = logging.getLogger(__name__)

SPARE_FRACTION = 1.0
"""Spare images as a share of those asked for; they replace images in which MediaPipe finds no hand."""


@dataclass(frozen=True)
class Selection:
    """The images that may become the two splits, in their order.

    Per gesture the first `num_train` and `num_test` images are used, and the others are spare. `unusable` are images
    with malformed annotations, of the `num_read` images that were read, `problems` what else was not used, and
    `filter_counts` has the number of images that each filter removed.
    """

    source: Source = field(compare=False)
    train: tuple[SourceImage, ...]
    test: tuple[SourceImage, ...]
    num_train: int
    num_test: int
    warnings: tuple[str, ...] = ()
    unusable: tuple[SkippedImage, ...] = ()
    num_read: int = 0
    problems: tuple[Problem, ...] = ()
    filter_counts: tuple[tuple[str, int], ...] = ()

    def cache_key_fields(self) -> list[JsonValue]:
        """What identifies the selection without reading its images: names, file versions and labels."""
        items = [*self.train, *self.test]
        facts: list[JsonValue] = []
        with ThreadPoolExecutor(self.source.concurrency) as pool:
            versions = pool.map(self.source.file_version, [item.file for item in items])
            for item, version in zip(items, versions, strict=True):
                bbox: list[JsonValue] | None = None if item.bbox is None else [*item.bbox]
                captions: list[JsonValue] = [[*item.captions]] if item.captions else []
                facts.append([item.file, item.user_id, bbox, item.caption, *version, *captions])
        unusable = (skipped.file for skipped in self.unusable)
        report: list[JsonValue] = [*self.warnings, *unusable, *map(str, self.filter_counts), *map(str, self.problems)]
        return [len(self.train), facts, report]


def select_images(
    source: Source,
    gestures: Sequence[str],
    *,
    num_train: int,
    num_test: int,
    seed: int,
    filters: "FilterSettings | ImageFilter",
    bbox_format: BBoxFormat = "relative",
) -> Selection:
    """Select the training and the test images of `gestures`.

    `filters` are bounds on the labels, or an `ImageFilter` that also leaves out the people of an exclusion list.

    HaGRID's own split is kept: training uses `train` and `val`, the test `test`. The split of a published dataset is
    kept too if every gesture has one. Other sources are split by `hand1000.data.split.split_by_person`.

    Raises:
        Hand1000Error: A gesture is unknown or has too few images. Malformed annotations do not raise: they are in the
            selection's `unusable`, and malformed annotation files in its `warnings`.
    """
    issues = IssueLog(source.root)
    reader = ImageReader(source, issues, bbox_format=bbox_format, single_gesture=len(gestures) == 1)
    splits = {gesture: reader.read(gesture) for gesture in gestures}
    image_filter = filters if isinstance(filters, ImageFilter) else ImageFilter(filters)
    train = {gesture: image_filter(items) for gesture, (items, _) in splits.items()}
    test = {gesture: image_filter(items) for gesture, (_, items) in splits.items() if items is not None}
    has_split = len(test) == len(train)
    if not has_split:
        train = {gesture: itertools.chain(items, test.get(gesture, ())) for gesture, items in train.items()}
    try:
        train_items, test_items, warnings = split_by_person(
            train,
            test if has_split else None,
            num_train=num_train,
            num_test=num_test,
            spare_fraction=SPARE_FRACTION if image_filter.settings.min_detector_iou else 0.0,
            seed=seed,
            issues=issues,
        )
    except Hand1000Error as error:
        excluded = f"{image_filter.num_excluded} images left out by `hand1000 data forget`"
        causes = [excluded] if image_filter.num_excluded else []
        causes += [*image_filter.warnings(), *issues.warnings]
        causes += [f"{skipped.file}: {skipped.reason}" for skipped in issues.unusable]
        causes += map(str, issues.problems)
        suffix = f" ({len(causes)} issues, the first: {causes[0]})" if causes else ""
        raise Hand1000Error(f"{error}{suffix}") from error
    if image_filter.num_excluded:
        # Only logged: the dataset of a source whose excluded people were not selected anyway keeps its digest.
        logger.warning("%s: %d images left out by `hand1000 data forget`", source.root, image_filter.num_excluded)
    return Selection(
        reader.source,
        tuple(train_items),
        tuple(test_items),
        num_train,
        num_test,
        warnings=(*warnings, *image_filter.warnings(), *issues.warnings),
        unusable=tuple(issues.unusable),
        num_read=issues.num_images,
        problems=issues.problems,
        filter_counts=tuple(image_filter.counts.items()),
    )


class ImageFilter:
    """Removes images by their labels, and those of an exclusion list, and counts them.

    Attributes:
        settings: Bounds on the labels.
        counts: Number of images that each bound removed.
        num_excluded: Number of images that the exclusion list removed.
    """

    def __init__(self, settings: FilterSettings, exclusions: Exclusions | None = None) -> None:
        self.settings = settings
        self._exclusions = exclusions or None
        self.num_excluded = 0
        self.counts = {"hand too small": 0, "hand at the border": 0, "too many hands": 0}

    def __call__(self, items: Iterable[SourceImage]) -> Iterator[SourceImage]:
        """Yield the images that pass."""
        for item in items:
            if self._exclusions and is_excluded(item, self._exclusions):
                self.num_excluded += 1
            elif reason := self._reason(item):
                self.counts[reason] += 1
            else:
                yield item

    def warnings(self) -> list[str]:
        """Return how many images each filter removed, as warnings."""
        return [f"{count} images filtered: {reason}" for reason, count in self.counts.items() if count]

    def _reason(self, item: SourceImage) -> str:
        if item.hands > self.settings.max_hands:
            return "too many hands"
        if item.bbox is None:
            return ""
        x, y, width, height = item.bbox
        if max(width, height) < self.settings.min_hand_size:
            return "hand too small"
        touches = min(x, y) <= 0 or max(x + width, y + height) >= 1 - 1e-6
        return "hand at the border" if touches and not self.settings.allow_border_hands else ""


def is_excluded(item: SourceImage, exclusions: Exclusions) -> bool:
    """Return whether the image or its person is on the exclusion list."""
    return exclusions.holds_person(item.user_id) or exclusions.holds_image(item.gesture, item.key)
